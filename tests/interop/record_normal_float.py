"""Packs numbers in 4-bit NormalFloat with bitsandbytes, for the tests of peft-kernels.

    python record_normal_float.py --out ../../crates/peft-kernels/tests/fixtures/nf4.safetensors

Needs torch, bitsandbytes and safetensors.
"""

import argparse

import bitsandbytes.functional as bnb
import torch
from safetensors.torch import save_file


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", required=True)
    out = parser.parse_args().out
    torch.manual_seed(0)
    # Two scales, a zero, and a block of zeros.
    values = torch.randn(2, 128) * torch.tensor([[0.03], [2.5]])
    values[0, 5] = 0
    values[1, 64:] = 0
    packed, state = bnb.quantize_4bit(
        values.contiguous(), blocksize=64, quant_type="nf4", compress_statistics=False
    )
    unpacked = bnb.dequantize_4bit(packed, state)
    save_file(
        {
            "values": values,
            "packed": packed.flatten(),
            "absmax": state.absmax,
            "unpacked": unpacked,
        },
        out,
    )


if __name__ == "__main__":
    main()
