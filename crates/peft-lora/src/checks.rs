//! What the configurations of several methods are checked for, and chosen by.

use peft_core::{Base, Error, ModuleNames, PatternMap, Result, Role, Site, SiteKind, Targets};

/// The linear layers that are adapted unless a configuration says otherwise: queries and values (Hu et
/// al., §7.1), or the projection that is both and keys.
pub(crate) const DEFAULT_ROLES: &[Role] = &[Role::Query, Role::Value, Role::QueryKeyValue];

/// Refuses ranks of zero.
pub(crate) fn ranks(rank: usize, pattern: &PatternMap<usize>) -> Result<()> {
    let patterns = pattern.iter().map(|(key, rank)| (format!("rank_pattern[{key:?}]"), *rank));
    for (field, rank) in patterns.chain([("r".to_string(), rank)]) {
        if rank == 0 {
            return Err(Error::config(field, rank, "the rank must be at least 1"));
        }
    }
    Ok(())
}

/// Refuses scales that are no numbers, or nothing.
pub(crate) fn scales(name: &str, value: f64, pattern: (&str, &PatternMap<f64>)) -> Result<()> {
    let (pattern_name, pattern) = pattern;
    let patterns = pattern.iter().map(|(key, value)| (format!("{pattern_name}[{key:?}]"), *value));
    for (field, value) in patterns.chain([(name.to_string(), value)]) {
        if !(value.is_finite() && value != 0.0) {
            return Err(Error::config(field, value, "must be a number other than 0"));
        }
    }
    Ok(())
}

/// Refuses a probability of dropout that drops everything.
pub(crate) fn dropout(name: &str, value: f64) -> Result<()> {
    if !(0.0..1.0).contains(&value) {
        return Err(Error::config(name, value, "must be at least 0, below 1"));
    }
    Ok(())
}

/// Refuses what has a meaning for convolutions only.
pub(crate) fn no_convolutions(use_effective_conv2d: bool) -> Result<()> {
    if use_effective_conv2d {
        let expected = "is for convolutions, and linear layers alone are adapted";
        return Err(Error::config("use_effective_conv2d", true, expected));
    }
    Ok(())
}

/// The targets by name, and whether a checkpoint stores weights of theirs as `[d_in, d_out]`, for HF
/// PEFT's file. Not all methods have `exclude_modules` there: where it is used, the rest is named by path.
pub(crate) fn for_file(targets: &Targets, base: &Base) -> Result<(Targets, bool)> {
    let sites = targets.resolve(base, DEFAULT_ROLES)?;
    let fan_in_fan_out = sites.iter().any(|site| site.fan_in_fan_out);
    let targets = match targets.exclude_modules {
        None => targets.named(base, &[SiteKind::Linear], DEFAULT_ROLES)?,
        Some(_) => {
            let paths = ModuleNames::list(sites.iter().map(|site| site.path.as_str()));
            Targets { target_modules: Some(paths), ..Targets::default() }
        }
    };
    Ok((targets, fan_in_fan_out))
}

/// The largest `[d_in, d_out]` among sites, each side on its own.
pub(crate) fn largest(sites: &[&Site]) -> [usize; 2] {
    let most = |side: fn(&Site) -> usize| sites.iter().map(|site| side(site)).max().unwrap_or(0);
    [most(Site::d_in), most(Site::d_out)]
}
