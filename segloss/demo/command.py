"""``python -m segloss.demo RUN``: serve the page until Ctrl-C."""

from segloss.config import DemoConfig
from segloss.demo.answers import Answers
from segloss.demo.server import DemoServer
from segloss.flags import parse_config
from segloss.inference import pick_device
from segloss.runs import load_run


def main(argv: list[str] | None = None) -> None:
    """``python -m segloss.demo``."""
    config = parse_config(DemoConfig, "python -m segloss.demo", argv)
    device = pick_device(config.accelerator)
    print(f"loading {config.run}", flush=True)
    run = load_run(config.run)
    run.model.to(device)
    run.criterion.to(device)
    with DemoServer(Answers(run), config.host, config.port) as server:
        if server.is_open:
            print(f"warning: other machines reach it at --host {config.host}, without a password", flush=True)
        print(f"{run.name} on {device}: {server.url} (Ctrl-C ends it)", flush=True)
        try:
            server.serve_forever(poll_interval=0.2)
        except KeyboardInterrupt:
            print("ended", flush=True)
