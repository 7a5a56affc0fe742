//! Trained rows of embeddings, and nothing else.

use burn::module::Module;
use peft_core::{
    Base, ComputationFunction, Edits, Error, Exchange, Hooks, InitContext, Method, MethodCard,
    MethodConfig, ModuleNames, ModulesToSave, Pass, Result, Role, Site, SiteKind, Size, TableEdit,
    Targets, TokenIndices,
};
use serde::{Deserialize, Serialize};

/// Tables are those of embeddings, and that of a language model's head.
const KINDS: &[SiteKind] = &[SiteKind::Embedding, SiteKind::Linear];
const DEFAULT_ROLES: &[Role] = &[Role::WordEmbedding];

/// Configuration of [`TrainableTokens`].
///
/// | field | default | meaning |
/// |---|---|---|
/// | `token_indices` (`tokens`) | none | the numbers of the tokens whose rows are trained; there must be one |
/// | `target_modules`, `exclude_modules` | the token embedding | the tables, see [`Targets`] |
/// | `init_weights` | true | rows start from the base's; carried, as nothing else is of use |
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct TrainableTokensConfig {
    /// The numbers of the tokens.
    pub token_indices: Vec<usize>,
    /// The tables.
    #[serde(flatten)]
    pub targets: Targets,
    /// Whether rows start from the base's.
    pub init_weights: bool,
}

impl Default for TrainableTokensConfig {
    fn default() -> Self {
        Self { token_indices: Vec::new(), targets: Targets::default(), init_weights: true }
    }
}

impl TrainableTokensConfig {
    /// The tables of `base` whose rows are trained.
    fn tables<'b>(&self, base: &'b Base) -> Result<Vec<&'b Site>> {
        let sites = self.targets.resolve_kinds(base, KINDS, DEFAULT_ROLES)?;
        let is_table = |site: &&&Site| {
            let is_embedding = site.kind == SiteKind::Embedding;
            (is_embedding && site.role != Role::RelativePosition) || site.is_unembedding
        };
        if let Some(other) = sites.iter().find(|site| !is_table(site)) {
            let expected = "is no table of tokens: name embeddings, or a language model's head";
            return Err(Error::config("target_modules", &other.path, expected));
        }
        Ok(sites)
    }
}

impl MethodConfig for TrainableTokensConfig {
    const NAME: &'static str = "trainable-tokens";
    const PEFT_TYPE: &'static str = "TRAINABLE_TOKENS";
    const ABOUT: &'static str = "rows of the token embedding, such as those of new tokens";
    // Rows are as large as the base's, and few.
    const LEARNING_RATE: f64 = 1e-3;
    const ALIASES: &'static [(&'static str, &'static str)] = &[("tokens", "token_indices")];
    const CARD: MethodCard = MethodCard {
        functions: &[ComputationFunction::Parameter],
        sites: "the token embedding, and a head that is tied to it",
        trainable: "d per token",
        merges: "yes, bit for bit",
        formats: "peft",
    };
    type Method = TrainableTokens;

    fn validate(&self) -> Result<()> {
        self.targets.validate()
    }

    fn unmatched(&self, base: &Base) -> Result<Vec<Error>> {
        self.targets.unmatched_kinds(base, KINDS, DEFAULT_ROLES)
    }

    fn for_file(&self, base: &Base) -> Result<Self> {
        let paths = ModuleNames::list(self.tables(base)?.iter().map(|site| site.path.clone()));
        let targets = Targets { target_modules: Some(paths), ..Targets::default() };
        Ok(Self { targets, ..self.clone() })
    }

    fn sizes(&self, base: &Base) -> Result<Vec<Size>> {
        let count = self.token_indices.len();
        let of = |site: &Site| {
            let d = if site.is_unembedding { site.d_in() } else { site.d_out() };
            Size::new("token_indices", count, (count * d) as f64)
        };
        Ok(self.tables(base)?.into_iter().map(of).collect())
    }

    fn init(&self, context: &InitContext<'_>) -> Result<TrainableTokens> {
        self.validate()?;
        if self.token_indices.is_empty() {
            let expected = "must have the number of a token: nothing would be trained";
            return Err(Error::config("token_indices", "[]", expected));
        }
        let InitContext { base, device, .. } = context;
        let tables = self.tables(base)?.into_iter();
        let rows = tables.map(|site| (site.path.clone(), self.token_indices.clone())).collect();
        let none = ModulesToSave::new(base, &[], device)?;
        let rows = none.with_tokens(base, &TokenIndices::Modules(rows), device)?;
        Ok(TrainableTokens { rows })
    }
}

/// Trained rows of embeddings `[entries, d]`, beside a table that stays as it is: `E'[t] = e_t` for the
/// tokens `t` that were chosen, with `e_t` of shape `[d]`, which starts at `E[t]`.
///
/// A head that is tied to the embedding has the same rows. Created with [`TrainableTokensConfig`]; beside
/// another method, the field `trainable_token_indices` of its configuration does the same.
#[derive(Module, Debug)]
pub struct TrainableTokens {
    rows: ModulesToSave,
}

impl Hooks for TrainableTokens {
    fn linear(&self, site: &Site, pass: &Pass<'_>) -> Edits {
        Hooks::linear(&self.rows, site, pass)
    }

    fn table(&self, site: &Site, pass: &Pass<'_>) -> TableEdit {
        Hooks::table(&self.rows, site, pass)
    }
}

impl Method for TrainableTokens {
    fn exchange(&mut self, file: &mut Exchange<'_>, base: &Base) {
        self.rows.exchange_rows(file, base, "trainable_tokens_delta");
    }
}
