// Command sample is the app that scenarios carry to production. It is a static program that runs in an empty
// image (FROM scratch), and its first argument says how it behaves:
//
//	serve      answer on $PORT (8080): /, /health, /setting?key=, /env?key=, /secret?key=, /slow?for=, /mode, /exit?after=
//	sick       the same, but /health answers 500
//	mute       accept connections and never answer
//	crash      exit 3 at once
//	idle       no port: run until SIGTERM (a queue worker)
//	ok         exit 0 (a check, a health command)
//	bad        exit 1
//	say TEXT   print TEXT, exit 0 (a release command)
//	needs K V  exit 0 if the setting K is V, else 1 (a check, health or release command)
//	get URL    print what URL answers, exit 0
//	say! KEY   print the setting KEY and the secret KEY, exit 0
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"sync/atomic"
	"syscall"
	"time"
)

func main() {
	if err := run(os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "sample:", err)
		os.Exit(1)
	}
}

func run(args []string) error {
	mode := "serve"
	if len(args) > 0 {
		mode = args[0]
	}
	switch mode {
	case "serve", "sick":
		if os.Getenv("MODE") == "broken" {
			return errors.New("MODE is broken: this app cannot start with it")
		}
		if err := errors.Join(discover(), unlock()); err != nil {
			return err
		}
		return serve(mode == "sick")
	case "mute":
		return mute()
	case "crash":
		fmt.Fprintln(os.Stderr, "sample: crashing, as asked")
		os.Exit(3)
	case "idle":
		fmt.Println("waiting for work")
		stop, _ := signal.NotifyContext(context.Background(), syscall.SIGTERM)
		<-stop.Done()
	case "ok":
	case "bad":
		return errors.New("failing, as asked")
	case "needs":
		if got := os.Getenv(args[1]); got != args[2] {
			return fmt.Errorf("%s is not as it must be", args[1])
		}
	case "say":
		fmt.Println(strings.Join(args[1:], " "))
	case "get":
		return get(args[1])
	case "say!":
		fmt.Println(os.Getenv(args[1]), secret(args[1]))
	default:
		return fmt.Errorf("unknown mode %q", mode)
	}
	return nil
}

func get(url string) error {
	response, err := http.Get(url)
	if err != nil {
		return err
	}
	defer response.Body.Close()
	_, err = io.Copy(os.Stdout, response.Body)
	return err
}

func port() string {
	if p := os.Getenv("PORT"); p != "" {
		return p
	}
	return "8080"
}

// version is what the image was built from: the file /version.
func version() string {
	text, err := os.ReadFile("/version")
	if err != nil {
		return "unversioned"
	}
	return strings.TrimSpace(string(text))
}

func secret(key string) string {
	if kept != nil {
		return kept.read(key)
	}
	if file := os.Getenv(key + "_FILE"); file != "" {
		if text, err := os.ReadFile(file); err == nil {
			return string(text)
		}
	}
	for _, folder := range []string{os.Getenv("TOWPATH_SECRETS"), "/run/secrets"} {
		if folder == "" {
			continue
		}
		if text, err := os.ReadFile(filepath.Join(folder, key)); err == nil {
			return string(text)
		}
	}
	return ""
}

func serve(sick bool) error {
	mux := http.NewServeMux()
	mux.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) {
		fmt.Fprintf(w, "hello %s %s\n", version(), setting("GREETING"))
	})
	mux.HandleFunc("/health", func(w http.ResponseWriter, r *http.Request) {
		if sick {
			http.Error(w, "sick, as asked", http.StatusInternalServerError)
		}
	})
	mux.HandleFunc("/setting", func(w http.ResponseWriter, r *http.Request) {
		fmt.Fprintln(w, setting(r.FormValue("key")))
	})
	mux.HandleFunc("/env", func(w http.ResponseWriter, r *http.Request) {
		fmt.Fprintln(w, os.Getenv(r.FormValue("key")))
	})
	mux.HandleFunc("/secret", func(w http.ResponseWriter, r *http.Request) {
		fmt.Fprintln(w, secret(r.FormValue("key")))
	})
	// With after, ends the app then; says in any case whether it was told to end.
	var leaving atomic.Bool
	mux.HandleFunc("/exit", func(w http.ResponseWriter, r *http.Request) {
		if after, err := time.ParseDuration(r.FormValue("after")); err == nil {
			leaving.Store(true)
			time.AfterFunc(after, func() { os.Exit(5) })
		}
		if leaving.Load() {
			fmt.Fprintln(w, "leaving")
		} else {
			fmt.Fprintln(w, "staying")
		}
	})
	// Fails where the mode that operators set is not one that the app knows.
	mux.HandleFunc("/mode", func(w http.ResponseWriter, r *http.Request) {
		if mode := os.Getenv("MODE"); mode != "" && mode != "good" {
			http.Error(w, "mode "+mode+" is not known", http.StatusInternalServerError)
			return
		}
		fmt.Fprintln(w, "mode is good")
	})
	mux.HandleFunc("/slow", func(w http.ResponseWriter, r *http.Request) {
		wait, _ := time.ParseDuration(r.FormValue("for"))
		select {
		case <-time.After(min(wait, time.Minute)):
			fmt.Fprintf(w, "slow %s\n", version())
		case <-r.Context().Done():
		}
	})
	server := &http.Server{Addr: ":" + port(), Handler: mux, ReadHeaderTimeout: 10 * time.Second}
	stop, cancel := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
	defer cancel()
	failed := make(chan error, 1)
	go func() { failed <- server.ListenAndServe() }()
	select {
	case err := <-failed:
		return err
	case <-stop.Done():
		// As most services do: no more connections from now on, at once. Whoever routes must have stopped before.
		ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
		defer cancel()
		return server.Shutdown(ctx)
	}
}

func mute() error {
	listener, err := net.Listen("tcp", ":"+port())
	if err != nil {
		return err
	}
	for {
		connection, err := listener.Accept()
		if err != nil {
			return err
		}
		defer connection.Close()
	}
}
