"""Key files, in both directions, with `eth_account`."""

import json
import stat

from eth_account import Account

from proxy import command

KEY = "0x" + "42" * 32
ADDRESS = "0x17c5185167401ed00cf5f5b2fc97d9bbfdb7d025"


def key_files(directory):
    return [path for path in (directory / "keys").iterdir() if not path.name.startswith(".")]


def test_a_file_of_ours_opens_there(tmp_path):
    done = command("wallet", "import", directory=tmp_path, password="pässwörd ✓", input=KEY)
    assert done.returncode == 0, done.stderr
    assert ADDRESS in done.stdout
    (path,) = key_files(tmp_path)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    opened = Account.decrypt(json.loads(path.read_text()), "pässwörd ✓")
    assert opened.hex().removeprefix("0x") == KEY.removeprefix("0x")


def test_an_export_opens_there(tmp_path):
    command("wallet", "import", directory=tmp_path, password="secret", input=KEY)
    (tmp_path / "new").write_text("pässwörd ✓\n")
    arguments = ("wallet", "export", "--new-password-file", "new")
    done = command(*arguments, directory=tmp_path, password="secret", input=ADDRESS[-4:])
    assert done.returncode == 0, done.stderr
    opened = Account.decrypt(json.loads(done.stdout), "pässwörd ✓")
    assert opened.hex().removeprefix("0x") == KEY.removeprefix("0x")


def test_files_of_theirs_open_here(tmp_path):
    for kdf, iterations in (("scrypt", 4096), ("pbkdf2", 1000)):
        directory = tmp_path / kdf
        directory.mkdir()
        file = directory / "theirs.json"
        file.write_text(json.dumps(Account.encrypt(KEY, "secret", kdf=kdf, iterations=iterations)))
        done = command("wallet", "import", file, directory=directory, password="secret")
        assert done.returncode == 0, done.stderr
        assert ADDRESS in command("wallet", "list", directory=directory).stdout
