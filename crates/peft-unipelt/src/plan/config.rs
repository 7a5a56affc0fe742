//! The configuration of a plan.

use peft_core::{
    AnyConfig, Base, ComputationFunction, Error, Exchange, Hooks, InitContext, Method, MethodCard,
    MethodConfig, Result, Size, Stack, refuse_stack,
};
use serde::{Deserialize, Serialize};

use super::group::NAMES;
use super::{Grouping, PlanGroup};

/// Configuration of a plan: groups of layers, with other methods in each.
///
/// | field | default | meaning |
/// |---|---|---|
/// | `groups` | one, with LoRA | the groups, each with its methods; see [`PlanGroup`] |
/// | `grouping` | `spindle` | how layers are divided among groups that do not name theirs; see [`Grouping`] |
///
/// S4 (Chen et al. 2023, arXiv 2301.01821) is a preset: four groups as a spindle, with adapters and
/// LoRA; adapters and a prefix; adapters, a prefix and biases; a prefix, biases and LoRA. A method has
/// the same size in all of its layers, which is how the paper divides trained values among them.
///
/// The method is a [`Stack`] of its methods. One that several groups have with the same fields is one
/// method over the layers of all of them. What is in no layer (embeddings, the norm behind the last
/// layer, the head) is in no group.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct PlanConfig {
    /// The groups.
    pub groups: Vec<PlanGroup>,
    /// How layers are divided among them.
    pub grouping: Grouping,
}

impl Default for PlanConfig {
    fn default() -> Self {
        let lora = PlanGroup { lora: Some(Default::default()), ..PlanGroup::default() };
        Self { groups: vec![lora], grouping: Grouping::default() }
    }
}

/// A method of a plan, with its groups.
struct Member<'a> {
    name: &'static str,
    config: &'a dyn AnyConfig,
    groups: Vec<usize>,
}

impl PlanConfig {
    /// Its methods: those of one name and the same fields are one.
    fn members(&self) -> Vec<Member<'_>> {
        let mut members: Vec<Member<'_>> = Vec::new();
        for name in NAMES {
            for (number, group) in self.groups.iter().enumerate() {
                let Some(config) = group.method(name) else { continue };
                let known = members.iter_mut().find(|member| {
                    member.name == name && member.config.to_fields() == config.to_fields()
                });
                match known {
                    Some(member) => member.groups.push(number),
                    None => members.push(Member { name, config, groups: vec![number] }),
                }
            }
        }
        members
    }

    /// The group of each layer.
    fn of_layers(&self, base: &Base) -> Vec<Option<usize>> {
        let divided = self.grouping.of_layers(base, self.groups.len());
        let group = |(layer, divided): (usize, usize)| match self.names_layers() {
            true => self.groups.iter().position(|group| {
                group.layers.as_ref().is_some_and(|layers| layers.contains(layer))
            }),
            false => Some(divided),
        };
        divided.into_iter().enumerate().map(group).collect()
    }

    fn names_layers(&self) -> bool {
        self.groups.iter().any(|group| group.layers.is_some())
    }

    /// The base of a method: the layers of its groups. `None` where there are none.
    fn base_of(&self, member: &Member<'_>, base: &Base) -> Option<Base> {
        let of_layers = self.of_layers(base);
        let is_own = |layer: usize| {
            let group = of_layers.get(layer).copied().flatten();
            group.is_some_and(|group| member.groups.contains(&group))
        };
        let has_any = (0..of_layers.len()).any(is_own);
        has_any.then(|| base.without(|site| !site.layer.is_some_and(is_own)))
    }

    /// Groups without a layer in `base`.
    fn empty_groups(&self, base: &Base) -> Vec<Error> {
        let of_layers = self.of_layers(base);
        let is_empty = |number: &usize| !of_layers.contains(&Some(*number));
        let error = |number: usize| {
            let layers = self.groups[number].layers.as_ref().map(ToString::to_string);
            let given = layers.unwrap_or_else(|| format!("group {number}"));
            let expected = format!("has no layer in this model, which has {}", of_layers.len());
            Error::config("groups.layers", given, expected)
        };
        (0..self.groups.len()).filter(is_empty).map(error).collect()
    }
}

impl MethodConfig for PlanConfig {
    const NAME: &'static str = "plan";
    const PEFT_TYPE: &'static str = "PLAN";
    const ABOUT: &'static str = "other methods in other layers";
    // That of its methods on a small encoder; a flat prefix would learn faster, and is not harmed.
    const LEARNING_RATE: f64 = 1e-3;
    const CARD: MethodCard = MethodCard {
        functions: &[
            ComputationFunction::Parameter,
            ComputationFunction::Input,
            ComputationFunction::Function,
        ],
        sites: "those of its methods, in the layers of their groups",
        trainable: "that of its methods",
        merges: "if all of its methods do",
        formats: "ours, in the layout of peft",
    };
    type Method = Stack;

    fn validate(&self) -> Result<()> {
        if self.groups.is_empty() {
            return Err(Error::config("groups", "[]", "must have a group at least"));
        }
        for (number, group) in self.groups.iter().enumerate() {
            if group.methods().next().is_none() {
                let expected = format!("must name one of {}", NAMES.join(", "));
                return Err(Error::config("groups.methods", format!("group {number}"), expected));
            }
            if self.names_layers() != group.layers.is_some() {
                let expected = "must be there in all groups, or in none";
                return Err(Error::config("groups.layers", format!("group {number}"), expected));
            }
            let Some(layers) = &group.layers else { continue };
            let taken = self.groups[..number].iter().filter_map(|other| other.layers.as_ref());
            let taken: Vec<_> = taken.collect();
            let is_taken =
                |layer: &usize| layers.contains(*layer) && taken.iter().any(|t| t.contains(*layer));
            if let Some(layer) = (0..=layers.last()).find(is_taken) {
                let expected = format!("layer {layer} is in an earlier group already");
                return Err(Error::config("groups.layers", layers, expected));
            }
        }
        Ok(())
    }

    fn unmatched(&self, base: &Base) -> Result<Vec<Error>> {
        let mut unmatched = match self.names_layers() {
            true => self.empty_groups(base),
            // A small model need not have a layer for each group.
            false => Vec::new(),
        };
        for member in self.members() {
            if let Some(own) = self.base_of(&member, base) {
                unmatched.extend(member.config.unmatched(&own)?);
            }
        }
        Ok(unmatched)
    }

    fn sizes(&self, base: &Base) -> Result<Vec<Size>> {
        let mut sizes = Vec::new();
        for member in self.members() {
            if let Some(own) = self.base_of(&member, base) {
                let of_member = member.config.sizes(&own)?;
                let within = format!("groups.{}", member.name);
                sizes.extend(of_member.into_iter().map(|size| size.within(&within)));
            }
        }
        Ok(sizes)
    }

    fn init(&self, context: &InitContext<'_>) -> Result<Stack> {
        self.validate()?;
        let base = context.base;
        for empty in self.empty_groups(base) {
            tracing::warn!("{empty}");
        }
        let (mut names, mut methods) = (Vec::new(), Vec::new());
        for member in self.members() {
            let Some(own) = self.base_of(&member, base) else { continue };
            names.push(member.name);
            methods.push(member.config.init(&context.over(&own))?);
        }
        if methods.is_empty() {
            let expected = "none of the groups has a layer in this model";
            return Err(Error::config("groups.layers", "(all)", expected));
        }
        let members: Vec<(&str, &dyn Hooks)> =
            names.into_iter().zip(methods.iter().map(|method| method as &dyn Hooks)).collect();
        refuse_stack(base, &members)?;
        let mut stack = Stack::new(methods);
        check_keys(&mut stack, base)?;
        Ok(stack)
    }
}

/// Refuses methods whose tensors would be under the same key in a file: prefixes of different fields,
/// or rules that adapters share.
fn check_keys(stack: &mut Stack, base: &Base) -> Result<()> {
    let mut file = Exchange::describe();
    stack.exchange(&mut file, base);
    let mut keys: Vec<String> = file.into_specs().into_iter().map(|spec| spec.key).collect();
    keys.sort_unstable();
    match keys.windows(2).find(|pair| pair[0] == pair[1]) {
        None => Ok(()),
        Some(pair) => {
            let expected = format!(
                "two groups have the same method with different fields, and {} in a file can be of one \
                 of them only: give them the same fields",
                pair[0]
            );
            Err(Error::config("groups", "(given)", expected))
        }
    }
}
