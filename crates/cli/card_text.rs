//! A model card in words.

use std::fmt::Write as _;

use item_affinity_model::{Propensity, Regime, SideDecision};
use item_affinity_solution::{ModelCard, moment};

use crate::evaluation_text::{calibration_line, days, percent, ranker_name};
use crate::exit::Failure;
use crate::print::text_table;
use crate::progress::grouped;

/// Coefficients that are shown, the largest first.
const COEFFICIENTS: usize = 8;

/// What a person needs to trust the version.
pub(crate) fn card_text(card: &ModelCard) -> Result<String, Failure> {
    let mut text = String::new();
    let mut line = |name: &str, value: &str| {
        let _ = writeln!(text, "  {name:<18}{value}");
    };
    line("data", &format!("{} to {}", moment(card.first_interaction), moment(card.last_interaction)));
    line("as of", &moment(card.as_of));
    line("horizon", &format!("{}: a score is the probability of an interaction within it", days(card.horizon_seconds)));
    line("users", &grouped(card.users));
    line("items", &grouped(card.items));
    line("interactions", &format!("{} of {} pairs", grouped(card.interactions), grouped(card.pairs)));
    line("hidden_dimension", &card.recipe.hidden_dimension.to_string());
    if let Some(version) = card.refreshed_from {
        line("refreshed from", &format!("version {version}: its item factors and coefficients, newer user states"));
    }
    let history = match card.propensity.user_half_life_events {
        Some(events) => format!("an event counts half after {events} later events of the user (chosen)"),
        None => "an event ages by half_life_days alone (chosen)".to_owned(),
    };
    line("user histories", &history);
    for (name, decision, columns) in [
        ("item attributes", &card.side.items, &card.item_attributes),
        ("user attributes", &card.side.users, &card.user_attributes),
    ] {
        line(name, &attributes(decision.as_ref(), columns));
    }
    text.push_str(&propensity(&card.propensity));
    if let Some(evaluation) = &card.evaluation {
        let header = ["1 % of users", "precision, all pairs", "precision, new pairs", "recall, new pairs"];
        let rows = evaluation.all_pairs.rankers.iter().zip(&evaluation.new_pairs.rankers);
        let rows = rows.filter(|(of, _)| of.k == evaluation.k).map(|(all, new)| {
            let name = ranker_name(&all.ranker).to_owned();
            vec![name, percent(all.precision), percent(new.precision), percent(new.recall)]
        });
        let table = text_table(&header, &rows.collect::<Vec<_>>())?;
        let _ = writeln!(
            text,
            "quality on the {} from {}, in percent",
            days(evaluation.horizon_seconds),
            moment(evaluation.cut)
        );
        let _ = writeln!(text, "{table}\n{}", calibration_line(&evaluation.calibration));
    } else if let Some(version) = card.refreshed_from {
        let _ =
            writeln!(text, "quality was not measured for these user states; for the training see version {version}");
    } else {
        text.push_str("quality was not measured; train --evaluate does\n");
    }
    for warning in &card.warnings {
        let _ = writeln!(text, "warning: {warning}");
    }
    Ok(text.trim_end().to_owned())
}

fn attributes(decision: Option<&SideDecision>, columns: &[String]) -> String {
    match decision {
        None => "none given, or none that say anything".to_owned(),
        Some(decision) if decision.used => format!(
            "{} (soft recall of new pairs {} % without, {} % with)",
            columns.join(", "),
            percent(decision.without),
            percent(decision.with)
        ),
        Some(_) => "given and not used, since they do not surely help".to_owned(),
    }
}

fn propensity(of: &Propensity) -> String {
    let mut text = String::new();
    if let Some(window) = &of.window {
        let short = if window.shortened { ", shorter than the horizon" } else { "" };
        let _ = writeln!(text, "probabilities learnt from {} to {}{short}", moment(window.from), moment(window.until));
    }
    let regimes = [
        ("new pairs", &of.new_pairs, Regime::new_pair_term_names()),
        ("repeat pairs", &of.repeat_pairs, Regime::repeat_pair_term_names()),
    ];
    for (name, regime, terms) in regimes {
        let _ = writeln!(text, "{name}: {}", regime_text(regime, &terms));
    }
    text
}

fn regime_text(regime: &Regime, terms: &[String]) -> String {
    match regime {
        Regime::Never => "none was seen to interact, so none is expected to".to_owned(),
        Regime::Prior { log_odds } => {
            format!("too few were seen to tell them apart; all have {:.4} %", 100.0 / (1.0 + (-log_odds).exp()))
        }
        Regime::Fitted { intercept, coefficients, ridge, positives, pairs } => {
            let mut named: Vec<(&String, f64)> = terms.iter().zip(coefficients.iter().copied()).collect();
            named.sort_by(|a, b| b.1.abs().total_cmp(&a.1.abs()));
            let words = named.iter().take(COEFFICIENTS).map(|(name, weight)| format!("{weight:+.3} × {name}"));
            format!(
                "{} of {} interacted, ridge {ridge}\n  log-odds = {intercept:.3} {}{}",
                grouped(*positives),
                grouped(*pairs),
                words.collect::<Vec<_>>().join(" "),
                if named.len() > COEFFICIENTS { " …" } else { "" }
            )
        }
    }
}
