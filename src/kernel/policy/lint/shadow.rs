//! A rule that can never be the one that permits, since an earlier one of its grant already permits all that it would.

use super::Subject;
use crate::kernel::policy::{
    finding::Finding,
    matcher::{Condition, Matcher},
    set::Rule,
};

/// The finding for a rule behind others of its grant.
pub(super) fn of_rule(subject: &Subject<'_>, before: &[Rule]) -> Option<Finding> {
    let wider = before.iter().find(|other| covers(other, subject.rule))?;
    let message = format!("`{}` above already permits all that this rule would", wider.name);
    let remedy = format!("remove this rule, or narrow `{}`", wider.name);
    Some(Finding::warning((&subject.grant.file, subject.rule.place), "shadowed", message, remedy))
}

/// Whether each condition of the one follows from some condition of the other.
fn covers(wide: &Rule, narrow: &Rule) -> bool {
    let is_implied = |condition: &Condition| narrow.conditions.iter().any(|each| implies(each, condition));
    wide.issuer == narrow.issuer
        && wide.window.is_none()
        && narrow.named_triggers.is_subset(&wide.named_triggers)
        && wide.conditions.iter().all(is_implied)
}

fn implies(narrow: &Condition, wide: &Condition) -> bool {
    if narrow.path != wide.path {
        return false;
    }
    if narrow.matcher == wide.matcher {
        return true;
    }
    // A literal can be tried; of two patterns nothing is claimed.
    match (&narrow.matcher, &wide.matcher) {
        (Matcher::Equals(_) | Matcher::Glob(_) | Matcher::Not(_), Matcher::Present(true)) => true,
        (narrow_matcher, _) if narrow_matcher.is_literal() && narrow.path.below.is_empty() => {
            narrow_matcher.literals().into_iter().all(|literal| {
                let claims = [(narrow.path.root.clone(), literal.clone())].into_iter().collect();
                wide.holds(&claims, &[])
            })
        }
        _ => false,
    }
}
