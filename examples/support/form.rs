//! The flag for the form of the answer.

use clap::ValueEnum;
use slugline::AnswerForm;

/// A form of the answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Form {
    /// An object for each item, with its number and its category
    Objects,
    /// An object with the category alone, for single items
    Category,
    /// The category without an object, for single items
    Bare,
}

impl From<Form> for AnswerForm {
    fn from(form: Form) -> Self {
        match form {
            Form::Objects => Self::Objects,
            Form::Category => Self::Category,
            Form::Bare => Self::Bare,
        }
    }
}
