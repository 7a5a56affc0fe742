"""The command `peft` on a configuration, with an eye on its time and memory."""

import json
import os
import resource
import subprocess
import sys
import tempfile
import threading

from safetensors.torch import load_file

SECONDS = 20
# More than this is a finding; at the second the system ends it, before the machine suffers.
MOST_MEMORY = 2 << 30
LIMIT = 16 << 30


class Answer:
    """What came of a call: `output` where it was accepted, `error` where not, and `crash` where it was
    neither."""

    def __init__(self, output=None, error=None, crash=None, warned=""):
        self.output, self.error, self.crash, self.warned = output, error, crash, warned


def call(program, arguments):
    """The standard output of a call, or an answer without one."""

    def limit():
        resource.setrlimit(resource.RLIMIT_AS, (LIMIT, LIMIT))
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))

    environment = os.environ | {"HF_HUB_OFFLINE": "1", "RUST_BACKTRACE": "0"}
    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
        process = subprocess.Popen(
            [program, *map(str, arguments)], stdout=out, stderr=err, preexec_fn=limit, env=environment
        )
        late = threading.Event()

        def end():
            late.set()
            process.kill()

        timer = threading.Timer(SECONDS, end)
        timer.start()
        _, status, usage = os.wait4(process.pid, 0)
        timer.cancel()
        process.returncode = code = os.waitstatus_to_exitcode(status)
        texts = []
        for file in (out, err):
            file.seek(0)
            texts.append(file.read().decode(errors="replace"))
    # In kibibytes, but for macOS.
    memory = usage.ru_maxrss * (1 if sys.platform == "darwin" else 1024)
    if late.is_set():
        return Answer(crash=f"no answer within {SECONDS} seconds")
    if memory > MOST_MEMORY:
        return Answer(crash=f"took {memory >> 20} MiB")
    if code not in (0, 1, 2):
        return Answer(crash=f"exit status {code}: {texts[1].strip()[-400:]}")
    if code:
        # Warnings come before it.
        return Answer(error=texts[1][texts[1].rfind("error: ") :].strip()[:600])
    return Answer(output=texts[0], warned=texts[1])


def forward(program, model, inputs, folder, adapter=None):
    """What `peft forward` computes."""
    out = folder / "out.safetensors"
    out.unlink(missing_ok=True)
    arguments = ["forward", "--model", model, "--inputs", inputs, "--out", out, "--json"]
    if adapter is not None:
        arguments += ["--adapter", adapter]
    answer = call(program, arguments)
    if answer.output is not None:
        answer.output = load_file(out)[json.loads(answer.output)["tensor"]]
    return answer


def generate(program, model, prompts, most):
    """The tokens with which `peft generate` continues prompts: words `t7` are tokens."""
    texts = [" ".join(f"t{token}" for token in prompt) for prompt in prompts]
    arguments = ["generate", "--model", model, "--json", *texts]
    if most is not None:
        arguments += ["--max-new-tokens", most]
    answer = call(program, arguments)
    if answer.output is not None:
        rows = [row["generated"] for row in json.loads(answer.output)["texts"]]
        answer.output = [[int(word[1:]) for word in row.split()] for row in rows]
    return answer
