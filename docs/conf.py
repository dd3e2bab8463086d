"""Settings of Sphinx: `make docs` builds these pages into build/docs."""

project = "symbert"
author = "The symbert developers"
extensions = ["myst_parser"]
myst_enable_extensions = ["colon_fence"]
myst_heading_anchors = 3
html_theme = "furo"
html_title = "symbert"
exclude_patterns = ["_build"]
