"""Who scores which images of a source, and their results put together: of the processes of a job, or of several jobs.

Images are dealt in turn, in the batches that one process would see them in, so that a network's scores are the same to
the last bit. Results are put together in the order of the images, so that sums of them are too.
"""

import hashlib
import json
import os
import zlib
from collections.abc import Collection, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

from segloss.datasets.base import file_state
from segloss.datasets.cells import Cell
from segloss.errors import InputError
from segloss.evaluation.results import ImageResult
from segloss.evaluation.source import Source
from segloss.evaluation.store import Results, ResultStore, row_of
from segloss.pixel_counts import images_looked_at
from segloss.progress import Progress
from segloss.ranks import here

SHOWN = 5  # names in the message on missing images
# What two scores of one report must have in common, in words: of the keys of Source.identity.
OTHER = {
    "classes": "other classes",
    "counted": "other measures",
    "files": "other images or labels",
    "index": "maps of another run",
    "labelled": "other classes labelled",
    "measures": "another decision, other measures or other views",
}


def fill(source: Source, kept: ResultStore, progress: Progress | None = None, shard: tuple[int, int] = (1, 1)) -> None:
    """Score what is not yet in the stores of the processes of this job, a share each, into that of the first.

    Args:
        shard: (k, n): of all images the k-th of n shares alone.
    """
    job, names = here(), source.names
    _require_alike(source)
    done: Collection[str] = ()
    if not source.sees_all:
        found = job.gather(kept.names())
        done = job.from_first(lambda: set().union(*found))
    mine = places_of(source, shard, done)
    results = source.results({*names} - {names[place] for place in mine})
    kept.add_all(results if progress is None else progress(results, len(mine)))
    for rows in job.stream(kept.batches()):
        kept.add_rows(rows)
    bad = job.gather(source.bad)
    suspects = source.suspects
    others = [] if suspects is None else job.gather((suspects.images, suspects.best))[1:]
    if job.rank == 0:
        source.take_bad({place: line for part in bad for place, line in part.items()})
        for images, best in others:
            assert suspects is not None
            suspects.join(images, best)


def places_of(source: Source, shard: tuple[int, int] | None = None, done: Collection[str] = ()) -> list[int]:
    """The images that this process of the job is to look at: of all, or of a shard of them, its share of those that
    are not done."""
    job, names = here(), source.names
    of_job = [place for batch in _of_shard(source, shard or (1, 1)) for place in batch]
    left = [place for place in of_job if names[place] not in done]
    return left if job.size == 1 else [place for batch in job.share(source.batches(left)) for place in batch]


def _of_shard(source: Source, shard: tuple[int, int]) -> Sequence[Sequence[int]]:
    """The batches of the k-th of n shares of all images."""
    k, n = shard
    return source.batches(range(len(source)))[k - 1 :: n]


def _require_alike(source: Source) -> None:
    """InputError, on the first process, where another would score something else."""
    job = here()
    if job.size == 1:
        return
    ours, *others = job.gather(source.identity())
    for rank, theirs in enumerate(others, start=1):
        if other := _difference(ours, theirs):
            cure = "give all of them the same data, weights and options"
            raise InputError(f"process {rank} of {job.size} has {other} than the first", cure, source.name)


def _difference(ours: Mapping[str, Any], theirs: Mapping[str, Any]) -> str | None:
    for name in {**theirs, **ours}:
        if ours.get(name) != theirs.get(name):
            return OTHER.get(name, f"other {name.replace('_', ' ')}")
    return None


def score_share(source: Source, folder: Path, shard: tuple[int, int], progress: Progress | None = None) -> str:
    """Score the k-th of n shares of a source into a store of its own for :func:`merge`; a line that says so."""
    place, job = f"{source.name}.{shard[0]}-of-{shard[1]}", here()
    path = folder / (f"{place}.sqlite.rank{job.rank}" if job.rank else f"{place}.sqlite")
    # Scored again in other batches, it begins anew: the last digits of a network's scores depend on them.
    dealt = hashlib.sha256(repr(_of_shard(source, shard)).encode()).hexdigest()
    with ResultStore(path, {**source.key(), "dealt": dealt}) as kept:
        fill(source, kept, progress, shard)
        names = source.names
        bad = {names[place]: line for place, line in source.bad.items()}
        scored = {} if job.rank else _as_they_lie(source.files, sorted(kept.names()))
        kept.note(source=source.name, identity=source.identity(), shard=shard, bad=bad, **scored)
        line = f"{source.name}: {len(kept)} of {len(source)} images, share {shard[0]} of {shard[1]}: {path}"
    if job.rank:
        path.unlink()
    return line


def _as_they_lie(files: Mapping[str, Sequence[Path]], names: Sequence[str]) -> dict[str, Any]:
    """Where the files of these images lie and in which state, and a checksum of their content, for :func:`_changed`."""
    checksums = images_looked_at(lambda place: _checksum(files[names[place]]), range(len(names)))
    return {**_lying(files, names), "contents": dict(zip(names, checksums, strict=True))}


def _lying(files: Mapping[str, Sequence[Path]], names: Sequence[str]) -> dict[str, str]:
    paths = [path for name in names for path in files[name]]
    found: dict[str, Iterable[object]] = {"at": map(os.path.abspath, paths), "states": map(_state, paths)}
    return {key: hashlib.sha256(repr([*values]).encode()).hexdigest() for key, values in found.items()}


def _state(path: Path) -> object:
    """Of a cell of a table that is streamed the table's, without a look at the cell."""
    if isinstance(path, Cell) and not path.is_file():
        return path.cells.stamp
    return path.is_file() and file_state(path)


def _checksum(paths: Sequence[Path]) -> int:
    """Of their content; of what is streamed of its state."""
    found = 0
    for path in paths:
        if not path.is_file():
            found = zlib.crc32(repr(_state(path)).encode(), found)
        else:
            with path.open("rb") as file:
                while piece := file.read(2**20):  # some are larger than memory
                    found = zlib.crc32(piece, found)
    return found


def _changed(source: Source, about: Mapping[str, Any]) -> str | None:
    """The first image whose files were written over with something else since a share was scored.

    They are read only where they have changed in any way. Files that lie elsewhere now are not, nor are those of a
    store that an earlier version wrote.
    """
    contents: dict[str, int] = about.get("contents", {})
    files, names = source.files, [*contents]
    if not names or (now := _lying(files, names))["at"] != about["at"] or now["states"] == about["states"]:
        return None
    checksums = images_looked_at(lambda place: _checksum(files[names[place]]), range(len(names)))
    return next((name for name, own in zip(names, checksums, strict=True) if own != contents[name]), None)


class Named(Protocol):
    name: str


def stores_of(given: Sequence[str], sources: Sequence[Named], folder: Path) -> dict[str, list[Path]]:
    """The stores in these files and folders by the name of their source, where there is one source all of them.

    Those that ``folder`` holds of whole sources are left out: results are merged into them.

    Raises:
        InputError: there is no store, or one of another source.
    """
    found: dict[str, list[Path]] = {source.name: [] for source in sources}
    ours = {(folder / f"{name}.sqlite").resolve() for name in found}
    for word in given:
        place = Path(word)
        paths = sorted(place.glob("*.sqlite")) if place.is_dir() else [place]
        paths = [path for path in paths if path.resolve() not in ours]
        if not paths or not paths[0].is_file():
            what = "holds no stores (.sqlite)" if place.is_dir() else "is no file or folder"
            raise InputError(what, "give --merge the stores that --shard wrote, or their folder", word)
        for path in paths:
            with Results(path, whole=False) as results:
                name = results.about.get("source")
            if name is None:
                raise InputError("is no share that was scored to its end", "score it again, by --shard", path)
            name = sources[0].name if len(sources) == 1 else name
            if name not in found:
                cure = "leave it out, or give --names as its job had them"
                raise InputError(f"is of {name}, not of {', '.join(found)}", cure, path)
            found[name].append(path)
    return found


def merge(source: Source, kept: ResultStore, stores: Sequence[Path]) -> None:
    """Take the results of a source from the stores of other jobs.

    Raises:
        InputError: one is of other images, labels, classes, weights or options, files were written over since, two
            count an image differently, or images are in none.
    """
    kept.clear()
    identity, names = json.loads(json.dumps(source.identity())), source.names  # as it is kept: lists, no tuples
    places = {name: place for place, name in enumerate(names)}
    seen: dict[Path, set[str]] = {}
    bad: dict[int, str] = {}
    for path in stores:
        with Results(path) as results:
            about = results.about
            if other := _difference(identity, about["identity"]):
                raise InputError(f"was scored with {other} than {source.name} here", "score that share again", path)
            if name := _changed(source, about):
                what = f"is of another {name}, which was written over since, than {source.name} here"
                raise InputError(what, "score that share again", path)
            own = results.names()
            for before, theirs in seen.items():
                for name in sorted(own & theirs):
                    if not _same(results.result(name), kept.result(name)):
                        what = f"counts {name} otherwise than {before}"
                        raise InputError(
                            what, "score both shares again, with one --batch-size and on machines of one kind", path
                        )
            for rows in results.batches():
                kept.add_rows(row_of(places[name], name, content) for _, name, content, _ in rows)
            seen[path] = own
            bad |= {places[name]: line for name, line in about["bad"].items()}
    done = kept.names()
    missing = [name for place, name in enumerate(names) if name not in done and place not in bad]
    if missing:
        more = f" and {len(missing) - SHOWN} more" if len(missing) > SHOWN else ""
        what = f"{len(missing)} of {len(names)} images are in no store: {', '.join(missing[:SHOWN])}{more}"
        cure = "give the stores of all shares; a job that was killed goes on with the same command"
        raise InputError(what, cure, source.name)
    source.take_bad(bad)


def _same(a: ImageResult, b: ImageResult) -> bool:
    return a.to_bytes() == b.to_bytes()
