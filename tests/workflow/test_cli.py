"""The command line itself: what it lists, and that a user's mistake gives a message."""

import re
from pathlib import Path

import pytest
from fake_checkout import FakeCheckout

from brainmets import __version__, cli

COMMANDS = (
    *("prepare", "study", "stop", "notebook", "score", "report", "review", "export", "pack", "unpack"),
    *("bundle", "screen", "follow", "phantoms"),
)


def test_alone_it_lists_the_commands_with_a_line_each(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main([]) == 2
    shown = capsys.readouterr().err
    for name in COMMANDS:
        assert re.search(rf"^    {name} +\w+", shown, re.MULTILINE), shown
    assert len(shown.partition("  COMMAND\n")[2].partition("\n\n")[0].splitlines()) == len(COMMANDS)
    assert "required" not in shown


def test_it_prints_its_version(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        cli.main(["--version"])
    assert ended.value.code == 0
    assert capsys.readouterr().out == f"brainmets {__version__}\n"


@pytest.mark.parametrize("words", [("study",), ("study", "-n"), ("notebook", "01"), ("review",), ("report",)])
def test_outside_a_checkout_it_says_where_it_looked_and_what_to_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], words: tuple[str, ...]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("BRAINMETS_ROOT", raising=False)
    assert cli.main([*words, "params/demo.yaml"]) == 2
    message = capsys.readouterr().err
    expected = f"params/demo.yaml: there is no such parameters file in {tmp_path}; change into the checkout"
    assert message.startswith(f"brainmets {words[0]}: {expected}")


def test_a_folder_that_cannot_be_made_is_named(
    checkout: FakeCheckout, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(checkout.root)
    (checkout.root / "file").write_text("")
    checkout.write({**checkout.content(), "work_dir": "file"})
    assert cli.main(["study", "params/tiny.yaml"]) == 2
    assert capsys.readouterr().err == f"brainmets study: {checkout.root}/file/tiny: Not a directory\n"
