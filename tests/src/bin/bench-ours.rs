//! `bench-ours ORDER` measures what the JSON object ORDER says, and prints what it took as one more.

use anyhow::{Context, Result};
use peft_tests::measured::measure;

/// That of the command `peft`.
#[global_allocator]
static ALLOCATOR: peft_kernels::TensorAllocator = peft_kernels::TensorAllocator;

fn main() -> Result<()> {
    let order = std::env::args().nth(1).context("bench-ours ORDER")?;
    let order = serde_json::from_str(&order).context("the order is not one")?;
    println!("{}", measure(&order)?);
    Ok(())
}
