//! Models on the Hugging Face hub, and in its cache.

use std::path::{Path, PathBuf};

use hf_hub::api::sync::{ApiBuilder, ApiRepo};
use hf_hub::{Cache, CacheRepo, Repo};
use peft::models::ShardIndex;

use super::{CONFIG, EXTRAS};
use crate::output::note;

const TOKENIZERS: &[&str] = &["tokenizer.json", "vocab.txt"];
/// In the order in which they are looked for when a model is loaded.
pub(super) const WEIGHTS: &[&str] = &[
    "model.safetensors",
    "model.safetensors.index.json",
    "pytorch_model.bin",
    "pytorch_model.bin.index.json",
];

fn repo(hub_id: &str) -> Repo {
    match hub_id.split_once('@') {
        Some((id, revision)) => {
            Repo::with_revision(id.into(), hf_hub::RepoType::Model, revision.into())
        }
        None => Repo::model(hub_id.into()),
    }
}

/// The directory of a model in the cache, which it is fetched to unless `offline`; what came of it
/// otherwise is added to `tried`.
pub(super) fn find(hub_id: &str, offline: bool, tried: &mut Vec<String>) -> Option<PathBuf> {
    let cache = Cache::from_env();
    if let Some(directory) = from_cache(&cache.repo(repo(hub_id))) {
        return Some(directory);
    }
    tried.push(format!("the cache {}: {hub_id} is not there as a whole", cache.path().display()));
    if offline {
        tried.push("the hub: offline".into());
        return None;
    }
    note(format_args!("fetching {hub_id} from the hub"));
    let api = ApiBuilder::from_cache(cache).with_progress(true).build();
    match api.map_err(|e| e.to_string()).and_then(|api| download(&api.repo(repo(hub_id)))) {
        Ok(directory) => Some(directory),
        Err(reason) => {
            tried.push(format!("the hub: {reason}"));
            None
        }
    }
}

/// The directory of a model in the cache, if all is there that it cannot do without.
fn from_cache(cached: &CacheRepo) -> Option<PathBuf> {
    let first = |names: &[&str]| names.iter().find_map(|name| cached.get(name));
    let (config, _, weights) = (cached.get(CONFIG)?, first(TOKENIZERS)?, first(WEIGHTS)?);
    let whole = !is_index(&weights) || ShardIndex::load(&weights).is_ok_and(|i| i.is_complete());
    config.parent().filter(|_| whole).map(Path::to_path_buf)
}

/// Fetches what a repository lists and a model needs; the checkpoint last, so that a model whose
/// download was cut off does not look whole.
fn download(api: &ApiRepo) -> Result<PathBuf, String> {
    let listed = api.info().map_err(|e| e.to_string())?.siblings;
    let is_listed = |name: &&&str| listed.iter().any(|file| file.rfilename == **name);
    let first = |names: &[&'static str]| names.iter().find(is_listed).copied();
    let get = |name: &str| api.get(name).map_err(|e| format!("{name}: {e}"));
    let tokenizer = first(TOKENIZERS).ok_or("it has neither tokenizer.json nor vocab.txt")?;
    let weights = first(WEIGHTS).ok_or("it has no checkpoint in a known format")?;
    for name in EXTRAS.iter().filter(is_listed) {
        get(name)?;
    }
    get(tokenizer)?;
    let config = get(CONFIG)?;
    let weights = get(weights)?;
    if is_index(&weights) {
        for shard in ShardIndex::load(&weights).map_err(|e| e.to_string())?.files() {
            get(shard)?;
        }
    }
    config.parent().map(Path::to_path_buf).ok_or_else(|| "the cache has no directory".into())
}

fn is_index(weights: &Path) -> bool {
    weights.extension().is_some_and(|extension| extension == "json")
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::io::{BufRead, BufReader, Write};
    use std::net::{TcpListener, TcpStream};
    use std::sync::{Arc, Mutex};

    use serde_json::json;
    use tempfile::TempDir;

    use super::*;

    /// A hub with one model, `o/m`; a file without content cannot be had for the moment.
    struct Hub {
        endpoint: String,
        cache: TempDir,
        asked: Arc<Mutex<Vec<String>>>,
    }

    type Files = BTreeMap<String, Option<String>>;

    impl Hub {
        fn new(files: &[(&str, Option<String>)]) -> Self {
            let files: Files =
                files.iter().map(|(name, content)| (name.to_string(), content.clone())).collect();
            let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
            let endpoint = format!("http://{}", listener.local_addr().expect("an address"));
            let asked = Arc::new(Mutex::new(Vec::new()));
            let seen = asked.clone();
            std::thread::spawn(move || {
                for stream in listener.incoming().flatten() {
                    answer(stream, &files, &seen);
                }
            });
            Self { endpoint, cache: TempDir::new().expect("a directory"), asked }
        }

        fn cache(&self) -> Cache {
            Cache::new(self.cache.path().into())
        }

        fn download(&self) -> Result<PathBuf, String> {
            let api = ApiBuilder::from_cache(self.cache()).with_progress(false);
            let api = api.with_token(None).with_endpoint(self.endpoint.clone()).build();
            download(&api.expect("a client").repo(repo("o/m")))
        }

        fn is_cached(&self) -> bool {
            from_cache(&self.cache().repo(repo("o/m"))).is_some()
        }

        fn has_asked_for(&self, name: &str) -> bool {
            self.asked.lock().expect("no panic").iter().any(|asked| asked == name)
        }
    }

    fn answer(mut stream: TcpStream, files: &Files, asked: &Mutex<Vec<String>>) {
        let lines = BufReader::new(stream.try_clone().expect("a stream")).lines();
        let head: Vec<String> =
            lines.map_while(std::io::Result::ok).take_while(|line| !line.is_empty()).collect();
        let from = head.iter().find_map(|line| {
            let (name, value) = line.split_once(": bytes=")?;
            let (from, _) = value.split_once('-').filter(|_| name.eq_ignore_ascii_case("range"))?;
            from.parse::<usize>().ok()
        });
        let path = head[0].split(' ').nth(1).unwrap_or_default();
        let name = path.rsplit('/').next().unwrap_or_default();
        asked.lock().expect("no panic").push(name.to_string());
        let (status, body) = match files.get(name) {
            _ if path.starts_with("/api/models/o/m/revision/main") => {
                let listed: Vec<_> = files.keys().map(|name| json!({"rfilename": name})).collect();
                ("200 OK", json!({"siblings": listed, "sha": "abc"}).to_string())
            }
            Some(Some(content)) => ("206 Partial Content", content.clone()),
            Some(None) => ("503 Service Unavailable", String::new()),
            None => ("404 Not Found", String::new()),
        };
        let from = from.unwrap_or(0).min(body.len());
        let headers = format!(
            "HTTP/1.1 {status}\r\nconnection: close\r\nx-repo-commit: abc\r\netag: \"{name}\"\r\n\
             content-range: bytes {from}-{0}/{0}\r\ncontent-length: {1}\r\n\r\n{2}",
            body.len(),
            body.len() - from,
            &body[from..]
        );
        let _ = stream.write_all(headers.as_bytes());
    }

    fn text(content: &str) -> Option<String> {
        Some(content.into())
    }

    fn index(shards: &[&str]) -> Option<String> {
        let map: BTreeMap<String, &&str> =
            shards.iter().enumerate().map(|(i, shard)| (format!("key{i}"), shard)).collect();
        Some(json!({ "weight_map": map }).to_string())
    }

    const INDEX: &str = "model.safetensors.index.json";

    #[test]
    fn all_that_a_model_may_have_is_fetched() {
        let hub = Hub::new(&[
            ("config.json", text("{}")),
            ("tokenizer.json", text("{}")),
            ("vocab.txt", text("a")),
            ("generation_config.json", text("{\"eos_token_id\": [1, 2]}")),
            ("pytorch_model.bin", text("other weights")),
            ("model.safetensors", text("weights")),
        ]);
        assert!(!hub.is_cached());
        let directory = hub.download().expect("a model");
        let read = |name: &str| std::fs::read_to_string(directory.join(name)).ok();
        assert_eq!(read("generation_config.json"), text("{\"eos_token_id\": [1, 2]}"));
        assert_eq!(read("model.safetensors"), text("weights"));
        assert!(hub.is_cached());
        // Of several forms, the first; what is not listed is not asked for.
        let others = ["pytorch_model.bin", "vocab.txt", "tokenizer_config.json", INDEX];
        assert!(!others.iter().any(|name| hub.has_asked_for(name)));
    }

    #[test]
    fn a_file_that_cannot_be_had_for_the_moment_is_not_one_that_is_not_there() {
        let files = |broken: &str| {
            [
                ("config.json", "{}"),
                ("tokenizer.json", "{}"),
                ("vocab.txt", "a"),
                ("generation_config.json", "{}"),
                ("model.safetensors", "weights"),
                ("pytorch_model.bin", "other weights"),
            ]
            .map(|(name, content)| (name, text(content).filter(|_| name != broken)))
        };
        for name in ["config.json", "tokenizer.json", "generation_config.json", "model.safetensors"]
        {
            let hub = Hub::new(&files(name));
            let error = hub.download().expect_err("it cannot be had");
            assert!(error.starts_with(name) && error.contains("503"), "{error}");
            assert!(!hub.has_asked_for("pytorch_model.bin") && !hub.has_asked_for("vocab.txt"));
            assert!(!hub.is_cached(), "without {name}");
        }
    }

    #[test]
    fn a_model_counts_as_cached_only_with_every_shard() {
        let with = |last: Option<String>| {
            Hub::new(&[
                ("config.json", text("{}")),
                ("tokenizer.json", text("{}")),
                (INDEX, index(&["one", "two"])),
                ("one", text("1")),
                ("two", last),
            ])
        };
        let mut hub = with(None);
        assert!(hub.download().expect_err("a shard is missing").starts_with("two"));
        assert!(!hub.is_cached());
        // Later it can be had, and nothing else is fetched again.
        let Hub { endpoint, asked, .. } = with(text("2"));
        (hub.endpoint, hub.asked) = (endpoint, asked);
        let directory = hub.download().expect("a model");
        assert!(hub.is_cached() && directory.join("one").exists());
        assert!(hub.has_asked_for("two") && !hub.has_asked_for("one"));
    }

    #[test]
    fn a_shard_elsewhere_is_refused_by_name() {
        let hub = Hub::new(&[
            ("config.json", text("{}")),
            ("tokenizer.json", text("{}")),
            (INDEX, index(&["../../../m", "/etc/m"])),
            ("m", text("0")),
        ]);
        let error = hub.download().expect_err("it leads elsewhere");
        assert!(error.contains(INDEX) && error.contains("../../../m"), "{error}");
        assert!(!hub.has_asked_for("m") && !hub.is_cached());
    }

    #[test]
    fn what_a_repository_lacks_is_said() {
        let config = ("config.json", text("{}"));
        let error = Hub::new(&[config.clone(), ("vocab.txt", text("a"))]).download();
        assert_eq!(error.unwrap_err(), "it has no checkpoint in a known format");
        let error = Hub::new(&[config, ("model.safetensors", text("w"))]).download();
        assert_eq!(error.unwrap_err(), "it has neither tokenizer.json nor vocab.txt");
    }
}
