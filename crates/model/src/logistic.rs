//! Logistic regression on weighted rows, by Newton steps in f64, with a ridge that keeps it finite.

use rayon::prelude::*;

use crate::linalg::{add_inner_f64, solve_f64};

mod sample;

pub(crate) use sample::Sample;

/// Rows in one partial sum: cut by the data, so that the threads do not show.
const BLOCK_ROWS: usize = 2048;
/// Newton steps at most; a few are usual.
const STEPS: usize = 50;
/// The steps end with one that is expected to gain less than this share of the loss; what it leaves is about its square.
const GAIN: f64 = 1e-7;
/// The same where losses are only compared, or where more rows follow.
const ROUGH_GAIN: f64 = 1e-5;
/// Rows that bring the coefficients of many more close to where they end.
const COARSE_ROWS: usize = 8_192;
/// Halvings of a step that would raise the loss.
const HALVINGS: usize = 40;
/// Parts of the users that are held out in turn to choose the ridge.
const FOLDS: u32 = 5;
/// A stronger ridge is preferred while its loss on held-out users is within this share of the best.
const TOLERANCE: f64 = 0.0015;

/// Log-odds as a linear function of features.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Logistic {
    pub(crate) intercept: f64,
    pub(crate) coefficients: Vec<f64>,
}

impl Logistic {
    /// The log-odds of a row.
    #[cfg(test)]
    fn log_odds(&self, features: &[f64]) -> f64 {
        self.intercept + features.iter().zip(&self.coefficients).map(|(x, c)| x * c).sum::<f64>()
    }

    /// Fits by maximum likelihood with `ridge / 2` times the squared coefficients of the standardized features as a
    /// penalty.
    ///
    /// Coefficients of `not_negative` features that would come out below 0 are held at 0.
    ///
    /// # Errors
    /// None when the sample lacks a label of either kind, or nothing finite is found.
    /// # Cost
    /// rows·features² / 2 multiply-adds a step; three to five steps, since a part of the rows takes the first ones
    /// # Source
    /// iteratively reweighted least squares: McCullagh and Nelder, *Generalized Linear Models*, 1989, section 2.5
    pub(crate) fn fit(sample: Sample, ridge: f64, not_negative: &[usize]) -> Option<Self> {
        Self::fit_with_loss(sample, ridge, not_negative, GAIN).map(|(fitted, _)| fitted)
    }

    /// The log-loss of the best fit, without the penalty; none if there is no fit. Good to [`ROUGH_GAIN`].
    pub(crate) fn loss(sample: Sample, ridge: f64, not_negative: &[usize]) -> Option<f64> {
        Self::fit_with_loss(sample, ridge, not_negative, ROUGH_GAIN).map(|(_, loss)| loss)
    }

    /// The ridge among the candidates that foresees held-out users best; see [`choose`]. None if there is no fit.
    pub(crate) fn best_ridge(mut sample: Sample, candidates: &[f64]) -> Option<f64> {
        start(&sample)?;
        let scales = sample.scales();
        sample.standardize(&scales);
        Some(choose(&sample, candidates))
    }

    fn fit_with_loss(mut sample: Sample, ridge: f64, not_negative: &[usize], gain: f64) -> Option<(Self, f64)> {
        let scales = sample.scales();
        sample.standardize(&scales);
        let mut held = vec![false; sample.features];
        let mut beta = coarse(&sample, ridge)?;
        loop {
            beta = newton(&sample, ridge, &held, beta, gain)?;
            let negative = not_negative.iter().filter(|feature| beta[**feature + 1] < 0.0).collect::<Vec<_>>();
            if negative.is_empty() {
                break;
            }
            negative.into_iter().for_each(|feature| held[*feature] = true);
        }
        let coefficients: Vec<f64> = (beta[1..].iter().zip(&scales))
            .map(|(b, (_, spread))| if *spread > 0.0 { b / spread } else { 0.0 })
            .collect();
        let shift: f64 = coefficients.iter().zip(&scales).map(|(c, (mean, _))| c * mean).sum();
        let fitted = Self { intercept: beta[0] - shift, coefficients };
        let finite = fitted.intercept.is_finite() && fitted.coefficients.iter().all(|c| c.is_finite());
        finite.then(|| (fitted, evaluate(&sample, &beta, false).loss))
    }
}

/// The strongest ridge whose loss on held-out users is close to the best: within [`TOLERANCE`], or one standard error.
fn choose(sample: &Sample, candidates: &[f64]) -> f64 {
    let fold = |user: u32| (user.wrapping_mul(2_654_435_761) >> 16) % FOLDS;
    let held = vec![false; sample.features];
    let strongest = candidates.last().copied().unwrap_or(1.0);
    let Some(of_all) = coarse(sample, strongest) else { return strongest };
    // losses[fold][candidate]; each ridge starts from the coefficients of the stronger one.
    let losses: Vec<Option<Vec<f64>>> = (0..FOLDS)
        .map(|held_out| {
            let train = sample.of_users(|user| fold(user) != held_out);
            let test = sample.of_users(|user| fold(user) == held_out);
            start(&train)?;
            let (mut beta, mut out) = (of_all.clone(), vec![0.0; candidates.len()]);
            for (ridge, loss) in candidates.iter().zip(&mut out).rev() {
                beta = newton(&train, *ridge, &held, beta, ROUGH_GAIN)?;
                *loss = evaluate(&test, &beta, false).loss;
            }
            Some(out)
        })
        .collect();
    let Some(losses) = losses.into_iter().collect::<Option<Vec<_>>>() else {
        return strongest;
    };
    let total = |at: usize| losses.iter().map(|fold| fold[at]).sum::<f64>();
    let best = (0..candidates.len()).min_by(|a, b| total(*a).total_cmp(&total(*b))).unwrap_or(0);
    let close = |at: usize| {
        let folds = f64::from(FOLDS);
        let worse: Vec<f64> = losses.iter().map(|fold| fold[at] - fold[best]).collect();
        let mean = worse.iter().sum::<f64>() / folds;
        let variance = worse.iter().map(|w| (w - mean) * (w - mean)).sum::<f64>() / (folds - 1.0);
        mean <= (variance / folds).sqrt() || mean * folds <= TOLERANCE * total(best)
    };
    (best..candidates.len()).rev().find(|at| *at == best || close(*at)).map_or(1.0, |at| candidates[at])
}

/// Coefficients before the first step: the log-odds of the whole. None without labels of both kinds.
fn start(sample: &Sample) -> Option<Vec<f64>> {
    let (positive, negative) = (sample.total_weight(true), sample.total_weight(false));
    let both = positive > 0.0 && negative > 0.0;
    both.then(|| {
        let mut beta = vec![0.0; sample.features + 1];
        beta[0] = (positive / negative).ln();
        beta
    })
}

/// Coefficients from a part of the rows, if there are many more; the penalty keeps its proportion.
fn coarse(sample: &Sample, ridge: f64) -> Option<Vec<f64>> {
    let start_of_all = start(sample)?;
    let step = sample.len() / COARSE_ROWS;
    if step < 2 {
        return Some(start_of_all);
    }
    let few = sample.thinned(step);
    #[allow(clippy::cast_precision_loss)]
    let found = start(&few)
        .and_then(|start| newton(&few, ridge / step as f64, &vec![false; sample.features], start, ROUGH_GAIN));
    Some(found.unwrap_or(start_of_all))
}

fn newton(sample: &Sample, ridge: f64, held: &[bool], mut beta: Vec<f64>, gain: f64) -> Option<Vec<f64>> {
    let q = beta.len();
    let penalty = |beta: &[f64]| 0.5 * ridge * beta[1..].iter().map(|b| b * b).sum::<f64>();
    (beta[1..].iter_mut().zip(held)).filter(|(_, held)| **held).for_each(|(b, _)| *b = 0.0);
    let mut at = evaluate(sample, &beta, true);
    let mut loss = at.loss + penalty(&beta);
    for _ in 0..STEPS {
        (at.gradient[1..].iter_mut().zip(&beta[1..])).for_each(|(gradient, b)| *gradient += ridge * b);
        at.hessian.iter_mut().step_by(q + 1).skip(1).for_each(|entry| *entry += ridge);
        for feature in (1..q).filter(|feature| held[feature - 1]) {
            at.gradient[feature] = 0.0;
            for other in 0..q {
                at.hessian[feature * q + other] = 0.0;
                at.hessian[other * q + feature] = 0.0;
            }
            at.hessian[feature * q + feature] = 1.0;
        }
        // Far out, where all probabilities are 0 or 1, the curvature may vanish.
        at.hessian[0] += 1e-9;
        let mut step = at.gradient.clone();
        if !solve_f64(&mut at.hessian, &mut step) {
            return None;
        }
        // At the end of the step a quadratic is half the slope along it lower.
        let expected = 0.5 * step.iter().zip(&at.gradient).map(|(step, gradient)| step * gradient).sum::<f64>();
        let last = expected <= gain * loss.abs();
        let mut share = 1.0;
        let next = (0..HALVINGS).find_map(|_| {
            let next: Vec<f64> = beta.iter().zip(&step).map(|(b, s)| b - share * s).collect();
            let after = evaluate(sample, &next, !last);
            let total = after.loss + penalty(&next);
            share *= 0.5;
            (total <= loss).then_some((next, after, total))
        });
        let Some((next, after, total)) = next else { break };
        (beta, at, loss) = (next, after, total);
        if last {
            break;
        }
    }
    beta.iter().all(|b| b.is_finite()).then_some(beta)
}

/// The loss at some coefficients, and its derivatives.
struct Evaluated {
    loss: f64,
    gradient: Vec<f64>,
    /// Lower triangle by columns.
    hessian: Vec<f64>,
}

fn evaluate(sample: &Sample, beta: &[f64], derivatives: bool) -> Evaluated {
    let q = beta.len();
    let blocks: Vec<Evaluated> = (0..sample.len().div_ceil(BLOCK_ROWS))
        .into_par_iter()
        .map(|block| {
            let rows = block * BLOCK_ROWS..sample.len().min((block + 1) * BLOCK_ROWS);
            let mut out = Evaluated { loss: 0.0, gradient: vec![0.0; q], hessian: Vec::new() };
            let mut panel = Vec::with_capacity(if derivatives { rows.len() * q } else { 0 });
            for at in rows {
                let (x, weight) = (sample.row(at), sample.weights[at]);
                let z = beta[0] + x.iter().zip(&beta[1..]).map(|(x, b)| x * b).sum::<f64>();
                // One exponential serves the loss and its derivatives.
                let small = (-z.abs()).exp();
                let signed = if sample.labels[at] { -z } else { z };
                out.loss += weight * (signed.max(0.0) + small.ln_1p());
                if derivatives {
                    let p = if z >= 0.0 { 1.0 } else { small } / (1.0 + small);
                    let residual = weight * (p - f64::from(u8::from(sample.labels[at])));
                    let root = (weight * p * (1.0 - p)).sqrt();
                    out.gradient[0] += residual;
                    out.gradient[1..].iter_mut().zip(x).for_each(|(g, x)| *g += residual * x);
                    panel.push(root);
                    panel.extend(x.iter().map(|x| root * x));
                }
            }
            if derivatives {
                out.hessian = vec![0.0; q * q];
                add_inner_f64(&panel, q, &mut out.hessian);
            }
            out
        })
        .collect();
    let mut sum = Evaluated { loss: 0.0, gradient: vec![0.0; q], hessian: vec![0.0; q * q] };
    for block in &blocks {
        sum.loss += block.loss;
        sum.gradient.iter_mut().zip(&block.gradient).for_each(|(sum, value)| *sum += value);
        sum.hessian.iter_mut().zip(&block.hessian).for_each(|(sum, value)| *sum += value);
    }
    sum
}

#[cfg(test)]
#[path = "logistic_tests.rs"]
mod tests;
