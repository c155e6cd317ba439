"""The web pages: files that the API hands out at `/ui/`, and a browser that is a client of the public HTTP API.

A single page of plain ES modules, with no build step and no server of its own: Preact and htm draw it, uPlot its curves
(all in `app/vendor`, with their versions and licences), and the rest is in this folder. Why not NiceGUI, or another
framework that runs on the server: the browser itself asks the public API, and nothing stands between; the server keeps
no state of a visitor, so that neither a reload nor a restart loses any; the page runs under a policy that allows no
script but its own files, neither inline nor `eval`; it is painted at once; its HTML, and so who can use it, is in our
own hands; and neither building nor running it takes Node.
"""

from pathlib import Path
from typing import Final

APP: Final = Path(__file__).parent / "app"  # what is handed out
