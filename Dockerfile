# segloss with everything that training and scoring need, and not as root.
#
#   docker build -t segloss .                                           # for CPUs and GPUs: torch's wheel has CUDA inside
#   docker build -t segloss --build-arg BASE=pytorch/pytorch:2.7.1-cuda12.6-cudnn9-runtime .    # on a base that has torch
#   docker run --rm --gpus all --shm-size 2g -v "$PWD:/data" segloss segloss-train --dataset synthetic --output-dir runs/a
#
# --shm-size: loader processes hand batches over in shared memory, of which a container has 64 MiB otherwise.
ARG BASE=python:3.11-slim-bookworm
FROM ${BASE}

LABEL org.opencontainers.image.title="segloss" \
      org.opencontainers.image.description="Semantic segmentation of imbalanced data, in PyTorch" \
      org.opencontainers.image.licenses="MIT"

ENV PYTHONUNBUFFERED=1 \
    PIP_NO_CACHE_DIR=1 \
    PIP_DISABLE_PIP_VERSION_CHECK=1 \
    SEGLOSS_CACHE=/data/.cache/segloss

COPY . /opt/segloss
# The base's torch stays where it is new enough.
RUN python -m pip install --no-cache-dir "/opt/segloss[train,export]" \
    && useradd --create-home --uid 1000 segloss \
    && install --directory --owner segloss /data

USER 1000
WORKDIR /data
CMD ["segloss-train", "--help"]
