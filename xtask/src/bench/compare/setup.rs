//! Programs and models, built or made where they are needed.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};
use serde_json::{Value, json};

use super::Args;
use super::case::Side;
use crate::python::python;
use crate::workspace::Workspace;

/// The version of the package that brings llama.cpp.
const LLAMA: &str = "node-llama-cpp@3.22.1";

/// What the cases are made with.
pub struct Setup {
    /// The workspace.
    pub workspace: Workspace,
    model: Option<PathBuf>,
    data: Option<[PathBuf; 2]>,
    /// Only so many lines of the training file.
    pub limit: Option<usize>,
    repeat: usize,
    quick: bool,
}

impl Setup {
    /// What the arguments say.
    pub fn new(args: &Args) -> Result<Self> {
        let data = args.train.clone().zip(args.test.clone());
        Ok(Self {
            workspace: Workspace::find()?,
            model: args.model.clone(),
            data: data.map(|(train, test)| [train, test]),
            limit: args.limit,
            repeat: args.repeat,
            quick: args.quick,
        })
    }

    /// How often each program is run.
    pub fn repeat(&self) -> usize {
        if self.quick { 1 } else { self.repeat }
    }

    /// Whether few repetitions are enough.
    pub fn quick(&self) -> bool {
        self.quick
    }

    /// Steps of a run, with those that warm up.
    pub fn steps(&self) -> usize {
        super::WARM_UP + if self.quick { 2 } else { 5 }
    }

    /// Builds our programs.
    pub fn build(&self) -> Result<()> {
        let packages = ["--package", "peft-cli", "--package", "peft-tests", "--bins"];
        self.workspace.cargo().args(["build", "--release"]).args(packages).run()?;
        Ok(())
    }

    /// One of our programs.
    pub fn program(&self, name: &str) -> PathBuf {
        self.workspace.target.join(format!("release/{name}{}", std::env::consts::EXE_SUFFIX))
    }

    /// A Python that has the peers.
    pub fn python(&self) -> Result<PathBuf> {
        python(&self.workspace)
    }

    /// A script beside those of the interchange.
    pub fn script(&self, name: &str) -> PathBuf {
        self.workspace.root.join("tests/interop").join(name)
    }

    /// A folder of our own under the target folder, which need not be there.
    pub fn folder(&self, name: &str) -> PathBuf {
        self.workspace.target.join("bench/compare").join(name)
    }

    /// The sentences to train on and to test with.
    pub fn data(&self) -> Result<[PathBuf; 2]> {
        self.data.clone().context("this case needs --train and --test")
    }

    /// The encoder of six layers, 384 wide.
    pub fn encoder(&self) -> Result<PathBuf> {
        self.model.clone().map_or_else(|| self.fetched("minilm"), Ok)
    }

    /// A random BERT of twelve layers, 768 wide.
    pub fn large_encoder(&self) -> Result<PathBuf> {
        self.random_encoder(12, 768)
    }

    /// A BERT with random weights.
    pub fn random_encoder(&self, layers: usize, width: usize) -> Result<PathBuf> {
        let sizes = [layers, width].map(|size| size.to_string());
        self.made(&format!("bert-{layers}x{width}"), "bert", || self.encoder(), &sizes)
    }

    /// The folder of a small language model in GGUF.
    pub fn packed_language_model(&self) -> Result<PathBuf> {
        self.fetched("smollm2")
    }

    /// The same in f32.
    pub fn language_model(&self) -> Result<PathBuf> {
        self.made("smollm2-f32", "gguf", || self.packed_language_model(), &[])
    }

    /// A LoRA adapter for it in GGUF, of rank 16 on all linear layers.
    pub fn packed_language_adapter(&self) -> Result<PathBuf> {
        let folder = self.made("smollm2-lora", "lora", || self.packed_language_model(), &[])?;
        Ok(folder.join("adapter.gguf"))
    }

    fn fetched(&self, name: &str) -> Result<PathBuf> {
        let output = Command::new(self.program("peft")).args(["fetch", name, "--json"]).output()?;
        let result: Value = serde_json::from_slice(&output.stdout)
            .with_context(|| String::from_utf8_lossy(&output.stderr).into_owned())?;
        let directory = result["directory"].as_str().context("peft fetch says where it is")?;
        Ok(directory.into())
    }

    /// A model that `bench_models.py` makes, once.
    fn made(
        &self,
        name: &str,
        what: &str,
        from: impl FnOnce() -> Result<PathBuf>,
        sizes: &[String],
    ) -> Result<PathBuf> {
        let folder = self.folder("models").join(name);
        if folder.is_dir() {
            return Ok(folder);
        }
        // Under another name until it is whole.
        let partial = self.folder("models").join(format!("{name}.part"));
        self.workspace.shell.remove_path(&partial)?;
        self.workspace.shell.create_dir(self.folder("models"))?;
        let python = self.python()?;
        let script = self.script("bench_models.py");
        let command = self.workspace.shell.cmd(python).arg(script).arg(what);
        command.arg(&partial).arg(from()?).args(sizes).run()?;
        std::fs::rename(&partial, &folder)?;
        Ok(folder)
    }

    /// The folder in which Node.js finds llama.cpp; it is installed once.
    pub fn llama(&self) -> Result<PathBuf> {
        let folder = self.folder("llama");
        if !folder.join("node_modules/node-llama-cpp/package.json").is_file() {
            self.workspace.shell.create_dir(&folder)?;
            self.workspace.shell.write_file(folder.join("package.json"), "{\"private\": true}")?;
            let npm = self.workspace.shell.cmd("npm").args(["install", "--prefix"]).arg(&folder);
            npm.arg(LLAMA).run().context("llama.cpp is installed by npm")?;
        }
        // Node.js looks for packages beside the script.
        std::fs::copy(self.script("bench_llama.mjs"), folder.join("bench_llama.mjs"))?;
        Ok(folder)
    }

    /// What the versions of llama.cpp are.
    pub fn llama_version(&self) -> String {
        LLAMA.into()
    }

    /// Our program with an order.
    pub fn ours(&self, order: Value) -> Side {
        let (program, out) = (self.program("bench-ours"), self.folder("out"));
        Side::new("ours", move |_| {
            if out.exists() {
                std::fs::remove_dir_all(&out)?;
            }
            let mut order = order.clone();
            order["out"] = json!(out);
            let mut command = Command::new(&program);
            command.arg(order.to_string());
            Ok(command)
        })
    }

    /// PyTorch's with the same.
    pub fn torch(&self, name: &str, order: Value) -> Result<Side> {
        let (python, script) = (self.python()?, self.script("bench_step.py"));
        Ok(Side::new(name, move |_| {
            let mut command = Command::new(&python);
            command.arg(&script).arg(order.to_string());
            Ok(command)
        }))
    }
}

/// An object with the fields of another over its own.
pub fn with(order: &Value, fields: Value) -> Value {
    let mut order = order.clone();
    if let (Some(order), Some(fields)) = (order.as_object_mut(), fields.as_object()) {
        order.extend(fields.clone());
    }
    order
}

/// The values of the fields with these names in a model's configuration.
pub fn sizes<const N: usize>(model: &Path, names: [&str; N]) -> Result<[usize; N]> {
    let path = model.join("config.json");
    let text = std::fs::read_to_string(&path).with_context(|| path.display().to_string())?;
    let config: Value = serde_json::from_str(&text)?;
    let value = |name: &str| {
        config[name].as_u64().map(|value| value as usize).with_context(|| format!("no {name}"))
    };
    let values = names.map(value).into_iter().collect::<Result<Vec<_>>>()?;
    Ok(values.try_into().expect("as many as names"))
}
