// Command hello is the app of the demo: a web service that greets, in the words that each environment
// gives it. It keeps no state, so that any number of replicas may run.
//
//	GREETING      what it says
//	DATABASE_URL  postgres://…; it is checked, and not used
//	PORT          where it listens, 8080 if unset
package main

import (
	"context"
	"errors"
	"fmt"
	"log"
	"net/http"
	"net/url"
	"os"
	"os/signal"
	"syscall"
	"time"
)

// edition changes from commit to commit.
const edition = "first edition"

func main() {
	if err := run(); err != nil {
		log.Fatal(err)
	}
}

func run() error {
	if err := checkDatabase(os.Getenv("DATABASE_URL")); err != nil {
		return err
	}
	port := os.Getenv("PORT")
	if port == "" {
		port = "8080"
	}
	mux := http.NewServeMux()
	mux.HandleFunc("GET /{$}", greet)
	mux.HandleFunc("GET /health", health)
	server := &http.Server{Addr: ":" + port, Handler: mux, ReadHeaderTimeout: 10 * time.Second}

	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	defer stop()
	drained := make(chan error, 1)
	context.AfterFunc(ctx, func() { drained <- server.Shutdown(context.Background()) })
	if err := server.ListenAndServe(); !errors.Is(err, http.ErrServerClosed) {
		return err
	}
	return <-drained
}

func greet(w http.ResponseWriter, _ *http.Request) {
	fmt.Fprintf(w, "%s (%s)\n", os.Getenv("GREETING"), edition)
}

// checkDatabase refuses at the start what could not work later.
func checkDatabase(text string) error {
	u, err := url.Parse(text)
	if err != nil || u.Scheme != "postgres" || u.Host == "" {
		return fmt.Errorf("DATABASE_URL %q is not postgres://host/name", text)
	}
	return nil
}
