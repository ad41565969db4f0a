"""What the tests of downloads share."""

from datacomp.distribution.getting import Options

HTTP = Options(bittorrent=False, patience=20.0)


def contents(folder):
    """Return the files of a folder that a person sees, with their bytes."""
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file() and ".datacomp" not in path.parts
    }


def by_source(report):
    return {one["source"].split("/versions")[0] + "/": one for one in report.sources}


def options(**more):
    return Options(**{"bittorrent": False, "patience": 1.0, **more})
