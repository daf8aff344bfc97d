//! Where the caller asks a run to stop.

use std::sync::Arc;

use tokio::sync::watch;

use crate::server::BoxFuture;

/// A switch that stops a run, seen from both sides.
#[derive(Clone, Debug)]
pub(crate) struct Stop(Arc<watch::Sender<bool>>);

impl Stop {
    pub(crate) fn new() -> Self {
        Self(Arc::new(watch::Sender::new(false)))
    }

    pub(crate) fn stop(&self) {
        self.0.send_replace(true);
    }

    pub(crate) fn stopped(&self) -> BoxFuture<'static, ()> {
        let mut receiver = self.0.subscribe();
        Box::pin(async move {
            if receiver.wait_for(|is_stopped| *is_stopped).await.is_err() {
                // Nobody is left who could ask.
                std::future::pending::<()>().await;
            }
        })
    }
}
