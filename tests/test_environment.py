"settings.ini and environment.yml name the same dependencies."
from configparser import ConfigParser
from pathlib import Path

import yaml

root = Path(__file__).parents[1]


def test_environment_yml_names_what_settings_ini_names():
    settings = ConfigParser(delimiters=["="])
    settings.read(root / "settings.ini")
    wanted = settings["DEFAULT"]["requirements"].split() + settings["DEFAULT"]["dev_requirements"].split()
    conda = yaml.safe_load((root / "environment.yml").read_text())["dependencies"]
    pip = next(d["pip"] for d in conda if isinstance(d, dict))
    assert sorted(pip) == sorted(wanted)
    assert f"python>={settings['DEFAULT']['min_python']}" in conda


def test_settings_keep_papermills_tag():
    "Without this key nbdev_clean deletes the tag `parameters`, and papermill's -p is silently ignored."
    assert "tags" in (root / "settings.ini").read_text().split("allowed_cell_metadata_keys", 1)[1].splitlines()[0]
