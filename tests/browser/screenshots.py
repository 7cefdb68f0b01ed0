"""Write a picture of every page, light, dark and on a phone, into a folder: ``make screenshots``."""

import sys
from pathlib import Path
from tempfile import TemporaryDirectory

sys.path.insert(0, str(Path(__file__).parent.parent))

import browsing
from seeding import make_seeded

LOOKS = {
    "light": {"color_scheme": "light"},
    "dark": {"color_scheme": "dark"},
    "phone": {"color_scheme": "light", "viewport": browsing.PHONE, "device_scale_factor": 2},
}


def shoot(out: Path, only: str = "") -> None:
    """Write the pictures of the pages whose name has a text in it."""
    out.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory() as folder:
        seeded = make_seeded(Path(folder) / "seeded.sqlite3")
        (Path(folder) / "home").mkdir()
        with browsing.serving(Path(folder) / "home", seeded) as service, browsing.chromium() as browser:
            pages = browsing.list_pages(service)
            for look, options in LOOKS.items():
                for name, (path, person) in pages.items():
                    if only in name:
                        with browsing.visiting(browser, service, person, **options) as (page, seen):
                            page.goto(path)
                            page.wait_for_load_state("networkidle")
                            page.screenshot(path=out / f"{name}-{look}.png", full_page=True)
                            sys.stdout.write(" ".join([f"{name}-{look}.png", *seen.problems]) + "\n")


if __name__ == "__main__":
    shoot(Path(sys.argv[1]), *sys.argv[2:])
