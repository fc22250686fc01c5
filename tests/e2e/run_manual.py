#!/usr/bin/env python3
"""Manual pages and completion: made from the program, judged by groff and by the shells themselves where they are."""
import glob
import os
import re
import shutil
import subprocess
import tempfile

from station import PHAROS, Runner

runner = Runner("manual")


def pharos(*arguments):
    done = subprocess.run([PHAROS, *arguments], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0 and not done.stderr, (arguments, done)
    return done.stdout


def helps():
    """{"train lm": its --help} of every command, found by asking."""
    found, waiting = {}, [""]
    while waiting:
        words = waiting.pop()
        text = pharos(*words.split(), "--help")
        found[words] = text
        if f"usage: pharos {words} COMMAND".replace("  ", " ") in text:
            waiting += [f"{words} {name}".strip() for name in re.findall(r"^  ([a-z][a-z-]*)(?:  |\n)", text, re.M)]
    return found


HELPS = helps()


def options_of(text):
    return re.findall(r"^  (-{1,2}[a-zA-Z][\w-]*)", text, re.M)


def every_command_has_a_page():
    with tempfile.TemporaryDirectory() as folder:
        pharos("man", os.path.join(folder, "new", "man1"))
        pages = {os.path.basename(path)[:-2]: open(path, encoding="utf-8").read() for path in glob.glob(folder + "/new/man1/*.1")}
        assert set(pages) == {"-".join(["pharos", *words.split()]) for words in HELPS}, set(pages)
        for words, text in HELPS.items():
            page = pages["-".join(["pharos", *words.split()])].replace("\\-", "-")
            missing = [option for option in options_of(text) if f"\\fB{option}\\fR" not in page]
            assert not missing, (words, missing)
        if shutil.which("groff"):
            for path in glob.glob(folder + "/new/man1/*.1"):
                said = subprocess.run(["groff", "-man", "-Tutf8", "-ww", "-rCHECKSTYLE=3", path], capture_output=True, text=True)
                assert said.returncode == 0 and not said.stderr, (path, said.stderr)
                assert "EXIT STATUS" in re.sub(".\b", "", said.stdout), path


def complete_in_bash(*words):
    script = pharos("completion", "bash") + """
COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1)); _pharos; printf '%s\\n' "${COMPREPLY[@]}"
"""
    done = subprocess.run(["bash", "-c", script, "bash", "pharos", *words], capture_output=True, text=True)
    assert not done.stderr, done.stderr
    return set(done.stdout.split())


def bash_completes():
    assert "serve" in complete_in_bash("")
    assert complete_in_bash("be") == {"bench"}
    assert {"lm", "data", "tokenizer"} <= complete_in_bash("train", "")
    assert complete_in_bash("complete", "--kv", "") == {"f32", "f16", "q8_0"}
    assert complete_in_bash("complete", "--model", "") == set()  # files, by the shell itself
    assert complete_in_bash("no-such-command", "") == set()
    for words, text in HELPS.items():
        found = complete_in_bash(*words.split(), "-")
        assert found == {*options_of(text), "--help"}, (words, found)


def complete_in_fish(line):
    script = pharos("completion", "fish") + f"complete -C '{line}'\n"
    done = subprocess.run(["fish", "--no-config", "-c", script], capture_output=True, text=True)
    assert not done.stderr, done.stderr
    return {found.split("\t")[0] for found in done.stdout.splitlines()}


def fish_completes():
    assert complete_in_fish("pharos be") == {"bench"}
    assert {"lm", "data"} <= complete_in_fish("pharos train ")
    assert "--tokenizer" in complete_in_fish("pharos train lm --")
    assert complete_in_fish("pharos complete --kv ") == {"f32", "f16", "q8_0"}


def zsh_reads_it():
    done = subprocess.run(["zsh", "-f", "-c", "autoload -U compinit; compinit -D; source /dev/stdin; whence -w _pharos"],
                          input=pharos("completion", "zsh"), capture_output=True, text=True)
    assert done.stdout.strip() == "_pharos: function" and not done.stderr, done


def wrong_words_are_said():
    for arguments, code in ((["completion", "tcsh"], 2), (["completion"], 2), (["man"], 2), (["man", "/dev/null/x"], 1),
                            (["--describe=tcsh"], 2)):
        done = subprocess.run([PHAROS, *arguments], capture_output=True, text=True)
        assert done.returncode == code and done.stderr.startswith("pharos: "), (arguments, done)


runner.run("every command has a page", every_command_has_a_page)
runner.run("wrong words are said", wrong_words_are_said)
for shell, check in (("bash", bash_completes), ("fish", fish_completes), ("zsh", zsh_reads_it)):
    if shutil.which(shell):
        runner.run(f"{shell} completes", check)
    else:
        print(f"SKIP: completion in {shell}: it is not here")
runner.finish()
