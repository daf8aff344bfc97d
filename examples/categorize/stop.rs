//! Stopping before the end: by a signal, or because the run has stopped.

use std::io::{self, IsTerminal, Write};
use std::sync::Arc;

use tokio::sync::watch;

/// Ends the source of items. Clones stop the same source.
#[derive(Clone, Debug)]
pub(crate) struct Stop(Arc<watch::Sender<bool>>);

impl Default for Stop {
    fn default() -> Self {
        Self(Arc::new(watch::Sender::new(false)))
    }
}

impl Stop {
    /// Ends the source.
    pub(crate) fn stop(&self) {
        self.0.send_replace(true);
    }

    /// Whether it has ended.
    pub(crate) fn is_stopped(&self) -> bool {
        *self.0.borrow()
    }

    /// Waits until it ends.
    pub(crate) async fn stopped(self) {
        // Cannot fail, since the sender is held here.
        let _ = self.0.subscribe().wait_for(|is_stopped| *is_stopped).await;
    }
}

/// Lets the first Ctrl-C or SIGTERM end the source and whatever else there is to stop, and the second the program.
pub(crate) fn on_signals(stop: &Stop, also: impl FnOnce() + Send + 'static) {
    let stop = stop.clone();
    tokio::spawn(async move {
        signal().await;
        // The terminal has shown ^C where the cursor was.
        let new_line = if io::stderr().is_terminal() { "\n" } else { "" };
        let _ = writeln!(
            io::stderr(),
            "{new_line}stopping: what is in flight is settled first; the same again stops at once"
        );
        also();
        stop.stop();
        signal().await;
        std::process::exit(1);
    });
}

/// Waits for a signal that asks to stop. Where none can be waited for, waits for ever.
async fn signal() {
    let interrupt = async {
        if tokio::signal::ctrl_c().await.is_err() {
            std::future::pending::<()>().await;
        }
    };
    #[cfg(unix)]
    let terminate = async {
        use tokio::signal::unix::{SignalKind, signal};
        match signal(SignalKind::terminate()) {
            Ok(mut signals) => {
                signals.recv().await;
            }
            Err(_) => std::future::pending().await,
        }
    };
    #[cfg(not(unix))]
    let terminate = std::future::pending::<()>();
    tokio::select! {
        () = interrupt => {}
        () = terminate => {}
    }
}
