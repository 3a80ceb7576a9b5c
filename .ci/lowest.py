"""Prints pip constraints that pin what users and the tests install to setup.cfg's lower bounds."""

import configparser
import re

setup = configparser.ConfigParser()
setup.read("setup.cfg", encoding="utf-8")
extras = setup["options.extras_require"]
listed = setup["options"]["install_requires"] + "".join(
    extras[name] for name in extras if name not in {"bench", "dev"}
)
for requirement in listed.split():
    if requirement.startswith("session_fsm["):
        continue
    pinned = re.match(r"([\w.-]+)(?:\[[\w,-]+\])?>=([\w.]+)(,|$)", requirement)
    if pinned is None:
        raise SystemExit(f"setup.cfg: {requirement} has no lower bound to test")
    print(f"{pinned[1]}=={pinned[2]}")
