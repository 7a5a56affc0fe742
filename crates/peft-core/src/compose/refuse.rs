//! Compositions without a meaning.

use burn::tensor::{Int, Tensor};

use crate::{
    Base, EmptyPass, Error, Hooks, Memo, Mode, Pass, Result, Role, Rows, Site, SiteKind, Slots,
    Stage, Tokens,
};

/// What a method acts on, as its own answers say.
#[derive(Debug, Clone, Default)]
pub struct Acts {
    /// Linear layers, by the path of the first.
    pub linear: Option<String>,
    /// Norms.
    pub norm: Option<String>,
    /// Embeddings.
    pub table: Option<String>,
    /// Tokens: they are changed, or there are more.
    pub tokens: Option<String>,
    /// Attentions.
    pub attention: Option<String>,
    /// Sublayers.
    pub sublayer: Option<String>,
    /// States that leave sublayers.
    pub states: Option<String>,
    /// Where a gate, which reads the mean of a text, multiplies what it does.
    pub gates: Option<String>,
    /// What leaves the layers, by a network beside them.
    pub beside: Option<String>,
}

impl Acts {
    /// What `method` acts on in `base`.
    pub fn of(method: &dyn Hooks, base: &Base) -> Self {
        let parts = EmptyPass::new(base.device());
        let pass = &parts.pass();
        let first = |acts: &dyn Fn(&Site) -> bool| {
            base.sites().find(|site| acts(site)).map(|site| site.path.clone())
        };
        Self {
            linear: first(&|site| is_linear(site) && !method.linear(site, pass).is_none()),
            norm: first(&|site| is_norm(site) && !method.norm(site, pass).is_none()),
            table: first(&|site| is_table(site) && !method.table(site, pass).is_keep()),
            tokens: first(&|site| is_embeddings(site) && changes_tokens(method, site, base)),
            attention: first(&|site| is_attention(site) && !method.attention(site, pass).is_none()),
            sublayer: first(&|site| is_sublayer(site) && !method.sublayer(site, pass).is_none()),
            gates: first(&|site| match site.kind {
                SiteKind::Linear => method.linear(site, pass).is_gated(),
                SiteKind::Sublayer => method.sublayer(site, pass).is_gated(),
                _ => false,
            }),
            states: first(&|site| is_sublayer(site) && method.sublayer(site, pass).is_behind()),
            beside: first(&|site| is_embeddings(site) && !method.beside(site, pass).is_none()),
        }
    }
}

fn is_linear(site: &Site) -> bool {
    site.kind == SiteKind::Linear
}

fn is_norm(site: &Site) -> bool {
    site.kind == SiteKind::Norm
}

fn is_table(site: &Site) -> bool {
    site.kind == SiteKind::Embedding || site.is_unembedding
}

fn is_attention(site: &Site) -> bool {
    site.kind == SiteKind::Attention
}

fn is_embeddings(site: &Site) -> bool {
    matches!(site.role, Role::Embeddings | Role::DecoderEmbeddings)
}

fn is_sublayer(site: &Site) -> bool {
    site.kind == SiteKind::Sublayer && !is_embeddings(site)
}

/// Whether a text of two tokens comes out longer, or otherwise.
fn changes_tokens(method: &dyn Hooks, site: &Site, base: &Base) -> bool {
    let rows = Rows::packed(&[2], base.device());
    let d = site.d_out() as i64;
    let numbers = Tensor::<1, Int>::arange(1..2 * d + 1, base.device()).float() / d as f64;
    let tokens = Tokens::new(numbers.reshape([2, d as usize]), rows.clone());
    let (slots, memo) = (Slots::default(), Memo::new());
    let pass = Pass { rows: &rows, slots: &slots, mode: Mode::Infer, memo: &memo, probe: None };
    [Stage::Embedded, Stage::Input].into_iter().any(|stage| {
        let after = method.tokens(stage, site, tokens.clone(), &pass);
        after.rows.tokens() != 2 || after.hidden.into_data() != tokens.hidden.to_data()
    })
}

/// Refuses a stack in which one member would drop what another does, or needs what the other does
/// not leave. Members come with their names, the first nearest to the base.
pub fn refuse_stack(base: &Base, members: &[(&str, &dyn Hooks)]) -> Result<()> {
    let parts = EmptyPass::new(base.device());
    let pass = &parts.pass();
    for site in base.sites() {
        for (number, (name, above)) in members.iter().enumerate() {
            let conflict = members[..number].iter().find_map(|(other, below)| {
                let reason = match site.kind {
                    SiteKind::Linear if site.is_unembedding => {
                        let edits = below.linear(site, pass).refuses(&above.linear(site, pass));
                        edits.or_else(|| below.table(site, pass).refuses(&above.table(site, pass)))
                    }
                    SiteKind::Linear => below.linear(site, pass).refuses(&above.linear(site, pass)),
                    SiteKind::Norm => below.norm(site, pass).refuses(&above.norm(site, pass)),
                    SiteKind::Embedding => {
                        below.table(site, pass).refuses(&above.table(site, pass))
                    }
                    SiteKind::Attention | SiteKind::Sublayer => None,
                };
                reason.map(|reason| (other, reason))
            });
            if let Some((other, reason)) = conflict {
                return Err(Error::Compose {
                    composition: "stack".into(),
                    methods: format!("{other}, {name}"),
                    reason: format!("{name} cannot act over {other} at {}: {reason}", site.path),
                });
            }
        }
    }
    Ok(())
}
