"""`umbel report`: the figures of a job beside those of its plan; for finished, stopped and killed jobs."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Annotated

from umbel.batch.declared import Argument, Option


def report_command(
    output: Annotated[str, Argument(metavar="OUT", help="The output of a run.")],
    as_json: Annotated[bool, Option("--json", help="Print one JSON object.")] = False,
    html: Annotated[Path | None, Option("--html", help="Write a page with pictures to this file.")] = None,
    open_page: Annotated[bool, Option("--open", help="Show the page in a browser [OUT.html].")] = False,
    verbose: Annotated[bool, Option("-v", "--verbose", help="The whole report, with the forest.")] = False,
) -> None:
    """Compare the job of OUT with its plan.

    Everything is read from OUT.umbel, the job's store: whether the job finished, was stopped or was killed, and in
    however many runs it was done. Exit codes: 0, 2 usage.
    """
    from umbel.batch.extras import check_page, write_page
    from umbel.batch.terminal import show, width_of
    from umbel.jobs.remote import file_name, is_uri
    from umbel.jobs.report.report import read_report
    from umbel.jobs.report.text import brief_text, report_text
    from umbel.jobs.write.remote_output import place_of

    if html is None and open_page:
        html = Path(f"{output}.html") if not is_uri(output) else Path(f"{file_name(output)}.html")
    if html is not None:
        check_page(html, output=place_of(output))
    report = read_report(place_of(output))
    if html is not None:
        from umbel.jobs.report.page import report_page

        write_page(html, report_page(report, report_text(report)), show=open_page)
    if as_json:
        print(json.dumps(report, indent=2))
    else:
        width = width_of(sys.stdout)
        show(report_text(report, width) if verbose else brief_text(report, width))
