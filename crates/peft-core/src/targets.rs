//! Which modules a method adapts: the rules of HF PEFT, exactly.

use std::cell::RefCell;
use std::collections::{BTreeSet, HashMap};

use fancy_regex::Regex;
use indexmap::IndexMap;
use serde::{Deserialize, Serialize};

use crate::{Base, Error, Result, Role, Site, SiteKind};

/// A list of module names, or one pattern.
///
/// - a list matches a module whose path *is* one of the names, or ends with `.name`;
/// - a string is a regular expression that must match the whole path;
/// - the string `all-linear` (any case) is every linear layer but the head.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum ModuleNames {
    /// A regular expression over whole paths, or `all-linear`.
    Pattern(String),
    /// Names: whole paths or their last components.
    List(Vec<String>),
}

impl ModuleNames {
    /// A list of names.
    pub fn list(names: impl IntoIterator<Item = impl Into<String>>) -> Self {
        Self::List(names.into_iter().map(Into::into).collect())
    }

    fn is_all_linear(&self) -> bool {
        matches!(self, Self::Pattern(p) if p.eq_ignore_ascii_case("all-linear"))
    }

    fn is_empty(&self) -> bool {
        match self {
            Self::Pattern(p) => p.is_empty(),
            Self::List(l) => l.is_empty(),
        }
    }

    fn describe(&self) -> String {
        serde_json::to_string(self).unwrap_or_default()
    }
}

/// One value or several.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum OneOrMany<T> {
    /// One.
    One(T),
    /// Several; an empty list is as if nothing were given.
    Many(Vec<T>),
}

impl<T> OneOrMany<T> {
    fn as_slice(&self) -> &[T] {
        match self {
            Self::One(value) => std::slice::from_ref(value),
            Self::Many(values) => values,
        }
    }
}

/// The fields of a configuration that choose modules.
///
/// | field | meaning |
/// |---|---|
/// | `target_modules` | what to adapt; `null`: the method's default for the model |
/// | `exclude_modules` | what not to, by the same rules; wins over `target_modules` |
/// | `layers_to_transform` | only these layers (an index or a list); a `target_modules` list only |
/// | `layers_pattern` | what the list of layers is called (`layer`, `h`), if not the last name before the first number |
///
/// As in HF PEFT, a name that is a module's whole path selects it whatever `layers_to_transform`
/// says, and `layers_to_transform` together with a string is an error.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Targets {
    /// What to adapt.
    pub target_modules: Option<ModuleNames>,
    /// What not to adapt.
    pub exclude_modules: Option<ModuleNames>,
    /// The layers to adapt.
    pub layers_to_transform: Option<OneOrMany<usize>>,
    /// The name of the list of layers.
    pub layers_pattern: Option<OneOrMany<String>>,
}

impl Targets {
    /// Checks what can be checked without a model.
    ///
    /// # Errors
    /// An unreadable regular expression, or fields that exclude each other.
    pub fn validate(&self) -> Result<()> {
        Matcher::new(self).map(|_| ())
    }

    /// The linear sites of `base` that are meant; without `target_modules`, those whose role is in
    /// `default_roles`.
    ///
    /// # Errors
    /// [`Error::NoMatch`] where nothing is selected. What selects nothing beside others that do is
    /// for the caller to ask: [`unmatched`](Self::unmatched).
    pub fn resolve<'b>(&self, base: &'b Base, default_roles: &[Role]) -> Result<Vec<&'b Site>> {
        self.resolve_kinds(base, &[SiteKind::Linear], default_roles)
    }

    /// As [`resolve`](Self::resolve), among the sites of other kinds: norms, attentions, embeddings.
    /// `all-linear` selects no embeddings.
    ///
    /// # Errors
    /// As there.
    pub fn resolve_kinds<'b>(
        &self,
        base: &'b Base,
        kinds: &[SiteKind],
        default_roles: &[Role],
    ) -> Result<Vec<&'b Site>> {
        let candidates = candidates(base, kinds);
        let matcher = Matcher::new(self)?;
        let mut selected = Vec::new();
        for &site in &candidates {
            let is_meant = match &self.target_modules {
                None => default_roles.contains(&site.role) && matcher.in_layers(&site.path)?,
                Some(names) if names.is_all_linear() => {
                    let is_meant = site.role != Role::Head && site.kind != SiteKind::Embedding;
                    is_meant && matcher.in_layers(&site.path)?
                }
                Some(_) => matcher.targets(&site.path)?,
            };
            if is_meant && !matcher.excludes(&site.path)? {
                selected.push(site);
            }
        }
        if selected.is_empty() {
            let pattern = match &self.target_modules {
                Some(names) => names.describe(),
                None => "(default)".into(),
            };
            let field = match self.layers_to_transform {
                Some(_) => "target_modules with layers_to_transform",
                None => "target_modules",
            };
            return Err(no_match(field, pattern, kinds, &candidates));
        }
        Ok(selected)
    }

    /// The same targets with the names of modules in the place of default roles, which another
    /// library may not have for the model.
    ///
    /// # Errors
    /// As [`resolve`](Self::resolve).
    pub fn named(&self, base: &Base, kinds: &[SiteKind], default_roles: &[Role]) -> Result<Self> {
        if self.target_modules.is_some() {
            return Ok(self.clone());
        }
        let meant = self.resolve_kinds(base, kinds, default_roles)?;
        let names: BTreeSet<&str> =
            meant.iter().map(|site| site.path.rsplit('.').next().unwrap_or(&site.path)).collect();
        let named = Self { target_modules: Some(ModuleNames::list(names)), ..self.clone() };
        if named.resolve_kinds(base, kinds, default_roles)? == meant {
            return Ok(named);
        }
        // The names are those of other modules too.
        let paths = ModuleNames::list(meant.iter().map(|site| site.path.as_str()));
        Ok(Self { target_modules: Some(paths), ..Self::default() })
    }

    /// The same targets by `target_modules` alone, for a method for which another library has no
    /// other field: as names where these select the same, or else as whole paths.
    ///
    /// # Errors
    /// As [`resolve`](Self::resolve).
    pub fn by_modules(
        &self,
        base: &Base,
        kinds: &[SiteKind],
        default_roles: &[Role],
    ) -> Result<Self> {
        if self.exclude_modules.is_none() && self.layers_to_transform.is_none() {
            return self.named(base, kinds, default_roles);
        }
        let meant = self.resolve_kinds(base, kinds, default_roles)?;
        let paths = ModuleNames::list(meant.iter().map(|site| site.path.as_str()));
        Ok(Self { target_modules: Some(paths), ..Self::default() })
    }

    /// What selects nothing: a name of `target_modules`, `exclude_modules`, or one of
    /// `layers_to_transform`. A new adapter refuses it; reading another's file warns, since HF
    /// PEFT accepts lists written for several models.
    ///
    /// # Errors
    /// As [`resolve`](Self::resolve).
    pub fn unmatched(&self, base: &Base, default_roles: &[Role]) -> Result<Vec<Error>> {
        self.unmatched_kinds(base, &[SiteKind::Linear], default_roles)
    }

    /// As [`unmatched`](Self::unmatched), among the sites of other kinds.
    ///
    /// # Errors
    /// As there.
    pub fn unmatched_kinds(
        &self,
        base: &Base,
        kinds: &[SiteKind],
        default_roles: &[Role],
    ) -> Result<Vec<Error>> {
        let candidates = candidates(base, kinds);
        let matcher = Matcher::new(self)?;
        let selected = self.resolve_kinds(base, kinds, default_roles)?;
        let no_match = |field: &str, pattern| no_match(field, pattern, kinds, &candidates);
        let mut unmatched = Vec::new();
        if let Some(ModuleNames::List(names)) = &self.target_modules {
            let missed =
                names.iter().filter(|n| !candidates.iter().any(|s| name_matches(&s.path, n)));
            unmatched.extend(missed.map(|n| no_match("target_modules", format!("{n:?}"))));
        }
        if let Some(exclude) = self.exclude_modules.as_ref().filter(|names| !names.is_empty())
            && !any(&candidates, |path| matcher.excludes(path))?
        {
            unmatched.push(no_match("exclude_modules", exclude.describe()));
        }
        for layer in self.layers_to_transform.as_ref().map_or(&[][..], |l| l.as_slice()) {
            if !any(&selected, |path| Ok(matcher.layer_of(path)? == Some(*layer)))? {
                unmatched.push(no_match("layers_to_transform", layer.to_string()));
            }
        }
        Ok(unmatched)
    }
}

fn candidates<'b>(base: &'b Base, kinds: &[SiteKind]) -> Vec<&'b Site> {
    base.sites().filter(|site| kinds.contains(&site.kind)).map(|site| site.as_ref()).collect()
}

/// Whether a site's path is such a one.
fn any(sites: &[&Site], mut is_such: impl FnMut(&str) -> Result<bool>) -> Result<bool> {
    for site in sites {
        if is_such(&site.path)? {
            return Ok(true);
        }
    }
    Ok(false)
}

fn no_match(field: &str, pattern: String, kinds: &[SiteKind], candidates: &[&Site]) -> Error {
    let mut names: Vec<&str> = candidates.iter().map(|s| s.name()).collect();
    names.sort_unstable();
    names.dedup();
    let mut available = names.join(", ");
    if let Some(site) = candidates.first() {
        available.push_str(&format!(" (as in {})", site.path));
    }
    let name = |kind: &SiteKind| match kind {
        SiteKind::Linear => "linear layer",
        SiteKind::Embedding => "embedding",
        SiteKind::Norm => "norm",
        SiteKind::Attention => "attention",
        SiteKind::Sublayer => "sublayer",
    };
    let what = kinds.iter().map(name).collect::<Vec<_>>().join(" or ");
    Error::NoMatch { field: field.into(), pattern, what, available }
}

fn name_matches(path: &str, name: &str) -> bool {
    path == name || path.strip_suffix(name).is_some_and(|rest| rest.ends_with('.'))
}

/// [`Targets`] with their expressions compiled.
struct Matcher<'t> {
    targets: &'t Targets,
    target: Option<Expression>,
    exclude: Option<Expression>,
    layer: Vec<Expression>,
}

impl<'t> Matcher<'t> {
    fn new(targets: &'t Targets) -> Result<Self> {
        let whole = |field: &str, names: &Option<ModuleNames>| match names {
            Some(ModuleNames::Pattern(p)) if !p.eq_ignore_ascii_case("all-linear") => {
                Expression::whole(field, p).map(Some)
            }
            _ => Ok(None),
        };
        let target = whole("target_modules", &targets.target_modules)?;
        let given = |many: &[usize]| !many.is_empty();
        let has_layers = targets.layers_to_transform.as_ref().is_some_and(|l| given(l.as_slice()));
        let is_string = matches!(targets.target_modules, Some(ModuleNames::Pattern(_)));
        if is_string && (has_layers || targets.layers_pattern.is_some()) {
            return Err(Error::config(
                "layers_to_transform",
                serde_json::to_string(&targets.layers_to_transform).unwrap_or_default(),
                "cannot be used when target_modules is a string: put the layers into a regular \
                 expression, or give target_modules as a list",
            ));
        }
        let patterns = match &targets.layers_pattern {
            // As if none were given.
            Some(OneOrMany::One(pattern)) if pattern.is_empty() => &[],
            patterns => patterns.as_ref().map_or(&[][..], |p| p.as_slice()),
        };
        if !patterns.is_empty() && !has_layers {
            return Err(Error::config(
                "layers_pattern",
                serde_json::to_string(&targets.layers_pattern).unwrap_or_default(),
                "needs layers_to_transform beside it",
            ));
        }
        let layer = if patterns.is_empty() {
            vec![Expression::new("layers_pattern", "", r"^.*?\.[^.]*\.(\d+)\.")?]
        } else {
            patterns
                .iter()
                .map(|p| Expression::new("layers_pattern", p, &format!(r"^(?:|.*?\.){p}\.(\d+)\.")))
                .collect::<Result<_>>()?
        };
        let exclude = whole("exclude_modules", &targets.exclude_modules)?;
        Ok(Self { targets, target, exclude, layer })
    }

    fn excludes(&self, path: &str) -> Result<bool> {
        match (&self.exclude, &self.targets.exclude_modules) {
            (Some(expression), _) => expression.matches(path),
            (None, Some(ModuleNames::List(names))) => {
                Ok(names.iter().any(|n| name_matches(path, n)))
            }
            _ => Ok(false),
        }
    }

    fn targets(&self, path: &str) -> Result<bool> {
        match (&self.target, &self.targets.target_modules) {
            (Some(expression), _) => expression.matches(path),
            (None, Some(ModuleNames::List(names))) => Ok(names.iter().any(|n| n == path)
                || names.iter().any(|n| name_matches(path, n)) && self.in_layers(path)?),
            _ => Ok(false),
        }
    }

    fn layer_of(&self, path: &str) -> Result<Option<usize>> {
        for expression in &self.layer {
            if let Some(layer) = expression.number(path)? {
                return Ok(Some(layer));
            }
        }
        Ok(None)
    }

    fn in_layers(&self, path: &str) -> Result<bool> {
        match self.targets.layers_to_transform.as_ref().map(|l| l.as_slice()) {
            None | Some([]) => Ok(true),
            Some(layers) => Ok(self.layer_of(path)?.is_some_and(|layer| layers.contains(&layer))),
        }
    }
}

/// A regular expression, and where it comes from.
struct Expression {
    field: String,
    /// What the field holds, of which the expression is made.
    pattern: String,
    regex: Regex,
}

thread_local! {
    /// Expressions that were read: each is asked for at every module.
    static READ: RefCell<HashMap<String, Regex>> = RefCell::default();
}

/// The most that are kept.
const MOST_READ: usize = 1024;

/// Reads an expression, or finds it among those that were read.
fn read(expression: &str) -> std::result::Result<Regex, Box<fancy_regex::Error>> {
    if let Some(regex) = READ.with_borrow(|read| read.get(expression).cloned()) {
        return Ok(regex);
    }
    let regex = Regex::new(expression)?;
    READ.with_borrow_mut(|read| {
        if read.len() == MOST_READ {
            read.clear();
        }
        read.insert(expression.into(), regex.clone());
    });
    Ok(regex)
}

impl Expression {
    fn new(field: &str, pattern: &str, regex: &str) -> Result<Self> {
        let (field, pattern) = (field.to_string(), pattern.to_string());
        match read(regex) {
            Ok(regex) => Ok(Self { field, pattern, regex }),
            Err(e) => Err(Error::Pattern { field, pattern, reason: e.to_string() }),
        }
    }

    /// Python's `re.fullmatch`.
    fn whole(field: &str, pattern: &str) -> Result<Self> {
        Self::new(field, pattern, &format!("^(?:{pattern})$"))
    }

    fn matches(&self, path: &str) -> Result<bool> {
        self.regex.is_match(path).map_err(|e| self.given_up(path, &e))
    }

    /// The number that the first group finds.
    fn number(&self, path: &str) -> Result<Option<usize>> {
        let groups = self.regex.captures(path).map_err(|e| self.given_up(path, &e))?;
        Ok(groups.and_then(|groups| groups.get(1)?.as_str().parse().ok()))
    }

    /// An expression that takes too many steps has no answer.
    fn given_up(&self, path: &str, reason: &fancy_regex::Error) -> Error {
        let (field, pattern) = (self.field.clone(), self.pattern.clone());
        Error::Match { field, pattern, path: path.into(), reason: reason.to_string() }
    }
}

/// Values by module: `rank_pattern` and `alpha_pattern`. A key is a regular expression for the end
/// of a path, whole components (`(.*\.)?(key)$`); the first that matches, in the order of the
/// file, wins.
pub type PatternMap<T> = IndexMap<String, T>;

/// The value that `patterns` give a module, or `default`.
///
/// # Errors
/// If a key is not a regular expression, or one that cannot be matched with the path.
pub fn pattern_value<T: Copy>(
    field: &str,
    patterns: &PatternMap<T>,
    path: &str,
    default: T,
) -> Result<T> {
    for (key, value) in patterns {
        if key_expression(field, key)?.matches(path)? {
            return Ok(*value);
        }
    }
    Ok(default)
}

/// The keys of `patterns` that match none of the adapted `sites`.
///
/// # Errors
/// As [`pattern_value`].
pub fn unmatched_patterns<T>(
    field: &str,
    patterns: &PatternMap<T>,
    sites: &[&Site],
) -> Result<Vec<Error>> {
    let mut unmatched = Vec::new();
    for key in patterns.keys() {
        let expression = key_expression(field, key)?;
        if !any(sites, |path| expression.matches(path))? {
            unmatched.push(no_match(field, format!("{key:?}"), &[SiteKind::Linear], sites));
        }
    }
    Ok(unmatched)
}

fn key_expression(field: &str, key: &str) -> Result<Expression> {
    Expression::new(field, key, &format!(r"^(.*\.)?({key})$"))
}
