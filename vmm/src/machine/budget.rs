//! The error budget: how many distinct pages may be poisoned until the machine should move to another host.

use machine_profile::{Budget, OnBudget};

use super::running::RunningMachine;
use crate::journal::Note;
use crate::lifecycle::Ending;

impl RunningMachine<'_> {
    /// Acts once if the budget is spent: while the machine runs, and once more when it has ended. The ledger counts, across resets, so an error that arrives while the machine is reset is counted
    /// by the next boot.
    pub(super) fn check_budget(&self) {
        let Some(Budget { pages: budget, action }) = self.machine.ras.budget else { return };
        let reporting = &self.preserved.reporting;
        let pages = reporting.distinct_pages();
        if pages < budget.into() || self.preserved.budget_spent.replace(true) {
            return;
        }
        reporting.journal().note(Note::Evacuate { pages, budget });
        match action {
            OnBudget::Report => {}
            // Every machine has one that has this action.
            OnBudget::PowerButton if self.lifecycle.ending().is_none() => drop(self.power_button.raise()),
            // A guest that is down already does not boot again.
            OnBudget::PowerButton | OnBudget::Stop => {
                self.lifecycle.end(Ending::BudgetSpent { pages, budget });
            }
        }
    }
}
