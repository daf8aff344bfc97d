//! `categorize(title, body)`: the SQL function.

use std::hash::{Hash, Hasher};
use std::sync::{Arc, LazyLock};

use async_trait::async_trait;
use datafusion::arrow::array::{Array, ArrayRef, AsArray, Float32Array, StringArray, StructArray};
use datafusion::arrow::compute::cast;
use datafusion::arrow::datatypes::{DataType, Field, Fields};
use datafusion::common::{exec_err, internal_err};
use datafusion::error::{DataFusionError, Result};
use datafusion::logical_expr::async_udf::{AsyncScalarUDF, AsyncScalarUDFImpl};
use datafusion::logical_expr::{ColumnarValue, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature, Volatility};
use datafusion::prelude::SessionConfig;
use slugline::{Categorizer, NewsItem, Outcome};

/// What the function gives for a row: `category` and `confidence`, or the kind of `error` and two nulls. The confidence is
/// null too where the server gives no log-probabilities.
static FIELDS: LazyLock<Fields> = LazyLock::new(|| {
    Fields::from(vec![
        Field::new("category", DataType::Utf8, true),
        Field::new("confidence", DataType::Float32, true),
        Field::new("error", DataType::Utf8, true),
    ])
});

/// The setting that a session needs with the function. DataFusion moves `c['category']` and `c['error']` below the projection
/// that makes `c`, and calls the function again for each of them, whatever its volatility: for three fields that were three
/// questions an item.
pub(crate) fn asking_once(config: SessionConfig) -> SessionConfig {
    config.set_bool("datafusion.optimizer.enable_leaf_expression_pushdown", false)
}

/// The function. Packs, retries and limits are the categorizer's, which all queries of the process share.
#[derive(Debug)]
pub(crate) struct Categorize {
    signature: Signature,
    categorizer: Option<Categorizer>,
}

impl Categorize {
    /// The function as it is run.
    pub(crate) fn by(categorizer: Categorizer) -> Self {
        Self { categorizer: Some(categorizer), ..Self::declared() }
    }

    /// The function as it is planned with, in a process that asks no server.
    pub(crate) fn declared() -> Self {
        // A stable function may be asked twice for a row: a filter on its result is pushed below the projection that calls
        // it, and then both call it. A volatile one is left where it stands.
        Self { signature: Signature::string(2, Volatility::Volatile), categorizer: None }
    }

    /// The function as a session registers it.
    pub(crate) fn into_udf(self) -> ScalarUDF {
        AsyncScalarUDF::new(Arc::new(self)).into_scalar_udf()
    }
}

/// Plans compare functions by name and types, and those of this one never differ.
impl PartialEq for Categorize {
    fn eq(&self, _: &Self) -> bool {
        true
    }
}

impl Eq for Categorize {}

impl Hash for Categorize {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.name().hash(state);
    }
}

impl ScalarUDFImpl for Categorize {
    fn name(&self) -> &'static str {
        "categorize"
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, _: &[DataType]) -> Result<DataType> {
        Ok(DataType::Struct(FIELDS.clone()))
    }

    fn invoke_with_args(&self, _: ScalarFunctionArgs) -> Result<ColumnarValue> {
        exec_err!("categorize is asynchronous: call it in the select list or the filter of a subquery")
    }
}

#[async_trait]
impl AsyncScalarUDFImpl for Categorize {
    /// Answers all rows of a batch at once. What fails for one item is in its row; what stops the whole run, such as a key
    /// that is refused, fails the query, since rows without an answer would look like items that have none.
    async fn invoke_async_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let Some(categorizer) = &self.categorizer else {
            return exec_err!("categorize is only declared in this process: it is run by executors, or by `local`");
        };
        let [titles, bodies] = args.args.as_slice() else {
            return internal_err!("categorize was given {} arguments", args.args.len());
        };
        let (titles, bodies) = (texts(titles, args.number_rows)?, texts(bodies, args.number_rows)?);
        let items = (0..args.number_rows)
            .map(|row| NewsItem::new(row.to_string(), text(&titles, row), text(&bodies, row)))
            .collect::<Vec<_>>();
        let report = categorizer.categorize(items).await;
        match report.error {
            Some(error) => Err(DataFusionError::External(Box::new(error))),
            None => Ok(ColumnarValue::Array(answers(&report.outcomes)?)),
        }
    }
}

/// An argument as a column, whichever of the three kinds of strings it has.
fn texts(argument: &ColumnarValue, rows: usize) -> Result<StringArray> {
    let column = cast(&argument.to_array(rows)?, &DataType::Utf8)?;
    Ok(column.as_string().clone())
}

/// A null is an empty text: an item may have a title alone, or a body alone.
fn text(column: &StringArray, row: usize) -> &str {
    if column.is_null(row) { "" } else { column.value(row) }
}

/// A row for each outcome.
fn answers(outcomes: &[Outcome]) -> Result<ArrayRef> {
    let answers = || outcomes.iter().map(|outcome| outcome.result.as_ref());
    let categories: StringArray = answers().map(|answer| answer.ok().map(|given| given.category.as_str())).collect();
    let confidences: Float32Array = answers().map(|answer| answer.ok().and_then(|given| given.confidence)).collect();
    let errors: StringArray = answers().map(|answer| answer.err().map(|error| error.kind.as_str())).collect();
    let columns: Vec<ArrayRef> = vec![Arc::new(categories), Arc::new(confidences), Arc::new(errors)];
    Ok(Arc::new(StructArray::try_new(FIELDS.clone(), columns, None)?))
}
