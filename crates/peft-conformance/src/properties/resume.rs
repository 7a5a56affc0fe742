//! A run that was cut off and goes on.

use burn::module::Module;
use burn::optim::AdamWConfig;
use burn::store::ModuleRecord;
use peft_core::Method;
use peft_format::Adapter;

use crate::Subject;
use crate::numbers::assert_same;
use crate::parameters::state;
use crate::subject::Run;

const STEPS: usize = 4;

/// A run that is cut off half-way and goes on from what a checkpoint holds, the parameters of the
/// method and of the optimizer, ends in the same bits as one that is not: nothing else decides, be
/// it from the calibration at the start, from the steps so far, or dropout.
///
/// # Panics
/// If it does not.
pub fn resumes_to_the_same_bits(subject: &Subject) {
    let subject = &subject.with_dropout().unwrap_or_else(|| subject.clone());
    let optimizer = || AdamWConfig::new().init();
    let run = |adapter, step| Run { adapter, optimizer: optimizer(), step, total: STEPS };
    let start = subject.calibrated();
    let mut whole = run(start.clone(), 0);
    (0..STEPS).for_each(|_| subject.step(&mut whole));

    let mut first = run(start, 0);
    (0..STEPS / 2).for_each(|_| subject.step(&mut first));
    let directory = tempfile::tempdir().expect("a temporary directory");
    let [method, of_optimizer] = ["method.bpk", "optimizer.bpk"].map(|f| directory.path().join(f));
    first.adapter.method.clone().into_record().save(&method).expect("the method is saved");
    first.optimizer.save(&of_optimizer).expect("the optimizer is saved");

    // As after a restart: nothing is known of the data that the run began with.
    let Adapter { config, method: fresh } = subject.fresh();
    let record = ModuleRecord::load(&method).expect("the method is read");
    let method = fresh.try_load_record(record);
    let method = method.unwrap_or_else(|e| panic!("a fresh method does not take the record: {e}"));
    let mut second = run(Adapter { config, method }, STEPS / 2);
    second.optimizer = second.optimizer.load(&of_optimizer).expect("the optimizer is read");
    (0..STEPS / 2).for_each(|_| subject.step(&mut second));

    let [resumed, expected] = [&second, &whole].map(|run| state(&run.adapter.method));
    assert_eq!(resumed.len(), expected.len(), "parameters of the run that went on");
    for ((path, resumed), (_, expected)) in resumed.iter().zip(&expected) {
        assert_same(&format!("{path} in the run that went on"), resumed, expected);
    }
    let [resumed, expected] = [second, whole].map(|Run { mut adapter, .. }| {
        adapter.method.finish();
        subject.host.logits(&adapter.method.valid())
    });
    assert_same("logits of the run that went on", &resumed, &expected);
}
