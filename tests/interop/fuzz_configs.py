#!/usr/bin/env python3
"""Change configurations at random, and compare what `peft` makes of them with transformers and PEFT.

    python fuzz_configs.py --peft target/debug/peft --fixtures tests/fixtures --variants 500 --seed 1

Each variant is one of the tiny models or adapters of the fixtures with a field or two of its
`config.json`, `generation_config.json` or `adapter_config.json` changed. Both must refuse it, or both
accept it and compute the same. Every other outcome is a finding: a line of `--report`, and a group in
what is printed. The exit status is 0 only if there is none.

What is refused as not supported is no finding where transformers computes something else than
without the change. A crash, more than 20 seconds, or more than 2 GiB always is one.
"""

import argparse
import collections
import json
import os
import random
import resource
import shutil
import sys
import tempfile
from pathlib import Path

import torch
import transformers
from safetensors.torch import load_file, save_file

import cases
import fuzz_bases
import fuzz_command
import fuzz_differences
import fuzz_mutations
import fuzz_oracle

# Shares of what is changed.
SURFACES = {"config": 6, "generation": 2, "adapter": 3}
TOLERANCE = 1e-4
NEW_TOKENS = 6
PROMPTS = [[5, 9, 12], [7, 30, 11, 8]]
# The oracle's own memory: it may ask for sizes that no machine has.
LIMIT = 12 << 30


def limit_memory(most):
    _, hardest = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (most, hardest))


class Variant:
    """What was changed, in which base."""

    def __init__(self, surface, base, done, fields):
        self.surface, self.base, self.done, self.fields = surface, base, done, fields

    def is_odd(self):
        """Whether a value is of a kind that no program writes there: what becomes of it in Python is
        an accident."""
        found = self.base.fields(self.surface)
        return not all(
            fuzz_mutations.is_of_its_kind(name, value, found.get(name)) for name, value in self.done.items()
        )

    def describe(self):
        return {"surface": self.surface, "base": self.base.name, "changed": self.done}


def distance(found, expected, mask):
    """How far apart outputs are, relative to the greatest, or why they cannot be compared."""
    if found.shape != expected.shape:
        return f"shape {list(found.shape)}, expected {list(expected.shape)}"
    scale = max(1.0, expected.abs().max().item())
    return cases.difference(found, expected, mask) / scale


def same(found, expected, mask):
    apart = distance(found, expected, mask)
    return not isinstance(apart, str) and apart <= TOLERANCE


class Fuzzer:
    def __init__(self, program, folder):
        self.program, self.folder = program, folder

    def inputs(self, base):
        path = self.folder / f"{base.name.replace('/', '-')}-inputs.safetensors"
        inputs = base.inputs()
        if not path.exists():
            save_file(inputs, path)
        return path, inputs

    def run(self, variant):
        """What both make of a variant: a verdict, an answer, and the mask of what is compared."""
        base, place = variant.base, self.folder / "model"
        shutil.rmtree(place, ignore_errors=True)
        place.mkdir()
        if variant.surface == "adapter":
            base.link(place, but="adapter_config.json")
            (place / "adapter_config.json").write_text(json.dumps(variant.fields))
            path, inputs = self.inputs(base)
            verdict = fuzz_oracle.adapted(base.model, base.task, place, inputs)
            answer = fuzz_command.forward(self.program, base.model, path, self.folder, place)
            return verdict, answer, cases.output_mask(inputs)
        name = "config.json" if variant.surface == "config" else "generation_config.json"
        base.link(place, but=name)
        (place / name).write_text(json.dumps(variant.fields))
        if variant.surface == "generation":
            fuzz_bases.write_tokenizer(place, base.words())
            # Without a number, 128 here and 20 with the prompt's there
            most = NEW_TOKENS if variant.fields.get("max_new_tokens") is None else None
            verdict = fuzz_oracle.generate(place, base.task, PROMPTS, most)
            return verdict, fuzz_command.generate(self.program, place, PROMPTS, most), None
        path, inputs = self.inputs(base)
        verdict = fuzz_oracle.forward(place, base.task, inputs)
        answer = fuzz_command.forward(self.program, place, path, self.folder)
        return verdict, answer, cases.output_mask(inputs)

    def starts(self, surface, base):
        """Whether both agree on a base as it is; its output is kept."""
        variant = Variant(surface, base, {}, base.fields(surface))
        verdict, answer, mask = self.run(variant)
        said, fine = answer.crash or answer.error, False
        if verdict.kind == "accepts" and said is None:
            fine, said = self.agreed(variant, verdict, answer, mask)
        if not fine:
            found = f"{verdict.kind} {verdict.reason}; {said}"
            print(f"left out: {surface} {base.name}: {found}", file=sys.stderr)
        base.unchanged_of[surface] = verdict
        return fine

    def agreed(self, variant, verdict, answer, mask):
        """Whether the outputs are the same, with a remark."""
        if variant.surface == "generation":
            expected = verdict.output
            if expected.drawn and variant.fields.get("top_k") != 1:
                return True, "drawn"
            found = [fuzz_oracle.until(expected.ends, row) for row in answer.output]
            return found == expected.rows, f"{found}, expected {expected.rows}"
        return same(answer.output, verdict.output, mask), str(distance(answer.output, verdict.output, mask))

    def as_absent(self, variant, answer, mask):
        """What transformers refuses as `null` may be taken as if it were absent."""
        fields = {name: value for name, value in variant.fields.items() if value is not None}
        verdict, _, _ = self.run(Variant(variant.surface, variant.base, variant.done, fields))
        fine = verdict.kind == "accepts" and self.agreed(variant, verdict, answer, mask)[0]
        return "null is as absent" if fine else None

    def changes(self, variant, verdict, mask):
        """Whether the oracle computes something else than without the change."""
        base = variant.base
        if variant.surface == "generation":
            return verdict.output.drawn or verdict.output.rows != base.unchanged.output.rows
        return not same(verdict.output, base.unchanged.output, mask)

    def judge(self, variant):
        """The outcome of a variant, and what is to be said about it."""
        verdict, answer, mask = self.run(variant)
        said = {"oracle": f"{verdict.kind} {verdict.reason or ''}".strip(), "peft": answer.error or "accepts"}
        if answer.crash is not None:
            return "crash", {**said, "peft": answer.crash}
        if verdict.kind == "none":
            return "no oracle", said
        output = verdict.output
        if isinstance(output, torch.Tensor) and not output.isfinite().all():
            return "no numbers", said
        refused = answer.error is not None
        if verdict.kind in ("refuses", "partial") and refused:
            return "both refuse", said
        known = fuzz_differences.reason(variant, verdict, answer)
        if verdict.kind == "refuses" and any(value is None for value in variant.done.values()):
            known = known or self.as_absent(variant, answer, mask)
        if verdict.kind == "partial":
            # Nothing to compare with: what is lacking is drawn at random.
            if output is None:
                return "both incomplete", said
            fine, remark = self.agreed(variant, verdict, answer, mask)
            if fine or known is None:
                return ("agree" if fine else "finding: differs"), {**said, "difference": remark}
            return "documented", {**said, "documented": known}
        if known is not None and (refused or verdict.kind == "refuses"):
            return "documented", {**said, "documented": known}
        if verdict.kind == "refuses" and "is ignored" in answer.warned:
            return "not supported", {**said, "peft": answer.warned.strip()[-300:]}
        if verdict.kind == "refuses":
            return ("odd, accepted" if variant.is_odd() else "finding: accepted"), said
        if refused:
            unsupported = "not supported" in answer.error
            if unsupported and self.changes(variant, verdict, mask):
                return "not supported", said
            return ("odd, refused" if variant.is_odd() else "finding: refused"), said
        fine, remark = self.agreed(variant, verdict, answer, mask)
        said["difference"] = remark
        if fine:
            return "agree", said
        if known is not None:
            return "documented", {**said, "documented": known}
        if "is ignored" in answer.warned:
            return "not supported", {**said, "peft": answer.warned.strip()[-300:]}
        return ("odd, differs" if variant.is_odd() else "finding: differs"), said


def changed(draw, bases, surface):
    """A variant of a base."""
    base = draw.choice(bases[surface])
    change = getattr(fuzz_mutations, f"of_{surface}")
    many = [1, 1, 1, 2, 3] if surface == "generation" else [1, 1, 1, 1, 2]
    fields, done = fuzz_mutations.mutated(draw, base.fields(surface), change, many)
    return Variant(surface, base, done, fields)


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--peft", required=True, help="the program")
    parser.add_argument("--fixtures", type=Path, required=True)
    parser.add_argument("--variants", type=int, default=500)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", choices=list(SURFACES), help="one of the files alone")
    parser.add_argument("--report", type=Path, help="where to write a line of JSON about each variant")
    parser.add_argument("--threads", type=int, default=1)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    transformers.utils.logging.set_verbosity(60)
    limit_memory(LIMIT)
    draw = random.Random(args.seed)
    counts, findings, seen = collections.Counter(), collections.defaultdict(list), set()
    with tempfile.TemporaryDirectory() as folder:
        fuzzer = Fuzzer(args.peft, Path(folder))
        bases = fuzz_bases.all_bases(args.fixtures, Path(folder))
        for surface in bases:
            bases[surface] = [base for base in bases[surface] if fuzzer.starts(surface, base)]
        report = open(args.report, "w", encoding="utf-8") if args.report else None
        names = [args.only] if args.only else list(SURFACES)
        while sum(counts.values()) < args.variants:
            [surface] = draw.choices(names, [SURFACES[name] for name in names])
            variant = changed(draw, bases, surface)
            key = json.dumps(variant.describe(), sort_keys=True)
            if key in seen:
                continue
            seen.add(key)
            variant.base.unchanged = variant.base.unchanged_of[surface]
            outcome, said = fuzzer.judge(variant)
            counts[outcome] += 1
            line = {**variant.describe(), "outcome": outcome, **said}
            if report:
                print(json.dumps(line), file=report, flush=True)
            if outcome == "crash" or outcome.startswith("finding"):
                findings[outcome, surface, tuple(sorted(variant.done))].append(line)
            total = sum(counts.values())
            if total % 100 == 0:
                print(f"{total} of {args.variants}", file=sys.stderr)
    print_results(counts, findings)
    sys.exit(1 if findings else 0)


def print_results(counts, findings):
    for (outcome, surface, fields), lines in sorted(findings.items(), key=str):
        print(f"{outcome}, {surface}, {', '.join(fields)}: {len(lines)}")
        for line in lines[:3]:
            print("   " + json.dumps({key: line[key] for key in line if key not in ("outcome", "surface")}))
    total = sum(counts.values())
    print(f"{total} variants compared")
    for outcome, count in counts.most_common():
        print(f"{count:7}  {outcome}")


if __name__ == "__main__":
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    main()
