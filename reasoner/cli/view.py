"""`reasoner view`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from reasoner.cli import complete
from reasoner.cli.errors import plain_errors


def view(
    folder: Annotated[
        Path,
        typer.Argument(help="A folder of runs, a run, or one of its stages.", autocompletion=complete.runs),
    ] = Path("runs"),
    port: Annotated[int, typer.Option("--port", min=0, max=65535, help="Port of the page; 0: any free port.")] = 0,
    browser: Annotated[bool, typer.Option("--browser/--no-browser", help="Open the page in the browser.")] = True,
) -> None:
    """Show all runs below a folder on a local page, live while they train; for this machine only."""
    with plain_errors():
        import threading
        import webbrowser

        from reasoner.observe.view.folder import Folder
        from reasoner.observe.view.server import ViewServer
        from reasoner.storage.files import RunError

        runs = Folder(folder)
        try:
            server = ViewServer(runs, port=port)
        except OSError as error:
            raise RunError(f"port {port} cannot be used: {error.strerror}. Give another --port, or 0.") from error
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        typer.echo(f"{server.address}  ({len(runs.stages())} stages below {folder}; Ctrl-C ends)")
        if browser:
            webbrowser.open(server.address)
        try:
            while thread.is_alive():
                thread.join(timeout=0.5)
        except KeyboardInterrupt:
            pass
        finally:
            server.shutdown()
            server.server_close()
