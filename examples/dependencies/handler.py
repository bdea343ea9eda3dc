"""Turns Markdown into HTML with a package from PyPI."""

import mistune

render = mistune.create_markdown(escape=True, plugins=["table", "strikethrough"])


def handle(request):
    return render(request.get_text()), 200, {"content-type": "text/html; charset=utf-8"}
