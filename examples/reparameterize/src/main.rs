//! LoRA on a Burn network that knows nothing of peft.

use burn::module::Module;
use burn::tensor::Device;
use peft_core::num_trainable;
use peft_core::reparameterize;
use reparameterize::{accuracy, data::strokes, lora, model::Cnn, train};

fn main() -> peft_core::Result<()> {
    let device = Device::default().autodiff();
    device.seed(7);
    let (pictures, unseen) = (strokes(300, 1, &device), strokes(300, 2, &device));
    let (turned, turned_unseen) = (pictures.clone().turned(), unseen.clone().turned());

    let (model, losses) = train(Cnn::new(&device), &pictures, 5e-3, 150);
    println!("plain network, {} values trained", num_trainable(&model));
    println!("  loss              {:.3} -> {:.3}", losses[0], losses[losses.len() - 1]);
    println!("  upright pictures  {:.1} % right", 100.0 * accuracy(&model, &unseen));
    println!("  turned pictures   {:.1} % right", 100.0 * accuracy(&model, &turned_unseen));

    let model = reparameterize(model, &lora())?;
    let trainable = num_trainable(&model);
    let (model, losses) = train(model, &turned, 1e-2, 150);
    println!("with LoRA, {trainable} values trained on turned pictures");
    println!("  loss              {:.3} -> {:.3}", losses[0], losses[losses.len() - 1]);
    println!("  turned pictures   {:.1} % right", 100.0 * accuracy(&model, &turned_unseen));

    let merged = model.valid().materialize();
    println!("merged, a plain network again");
    println!("  turned pictures   {:.1} % right", 100.0 * accuracy(&merged, &turned_unseen));
    Ok(())
}
