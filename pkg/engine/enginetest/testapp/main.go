// Testapp is a service that behaves and misbehaves as told, for tests that need a real container. It is
// static and needs nothing from its image.
//
//	testapp serve [-host IP] [-port 8080] [-health 200] [-ready 0s] [-die 0s] [-text hello]   a service
//	testapp print TEXT [EXITCODE]   says TEXT, exits
//	testapp once [-takes 0s]        prints an id of this very run
//	testapp idle                    runs and answers nothing
//	testapp check                   exits 0 once idle or serve has run for a second
//	testapp fetch URL               prints what is there
package main

import (
	"bufio"
	"context"
	"crypto/rand"
	"errors"
	"flag"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/signal"
	"path"
	"strconv"
	"syscall"
	"time"
)

func main() {
	if len(os.Args) < 2 {
		fmt.Fprintln(os.Stderr, "testapp: what?")
		os.Exit(2)
	}
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
	defer stop()
	args := os.Args[2:]
	switch os.Args[1] {
	case "serve":
		serve(ctx, args)
	case "print":
		fmt.Println(args[0])
		if len(args) > 1 {
			code, _ := strconv.Atoi(args[1])
			os.Exit(code)
		}
	case "once":
		once(ctx, args)
	case "idle":
		os.WriteFile("/started", nil, 0o600)
		fmt.Println("idle")
		<-ctx.Done()
	case "fetch":
		response, err := http.Get(args[0])
		if err != nil {
			fmt.Println(err)
			os.Exit(1)
		}
		io.Copy(os.Stdout, response.Body)
	case "check":
		if i, err := os.Stat("/started"); err != nil || time.Since(i.ModTime()) < time.Second {
			fmt.Println("not yet")
			os.Exit(1)
		}
	}
}

func once(ctx context.Context, args []string) {
	flags := flag.NewFlagSet("once", flag.ExitOnError)
	takes := flags.Duration("takes", 0, "how long it takes")
	flags.Parse(args)
	fmt.Println("run", rand.Text())
	select {
	case <-time.After(*takes):
	case <-ctx.Done():
		os.Exit(143)
	}
}

func serve(ctx context.Context, args []string) {
	flags := flag.NewFlagSet("serve", flag.ExitOnError)
	listen := flags.String("host", "", "address to listen on; empty: every")
	port := flags.Int("port", 8080, "port to listen on")
	health := flags.Int("health", 200, "status of /health")
	ready := flags.Duration("ready", 0, "how long /health answers 503 first")
	die := flags.Duration("die", 0, "exit with 3 after this long")
	text := flags.String("text", "hello", "what / answers")
	flags.Parse(args)
	os.WriteFile("/started", nil, 0o600)
	begun := time.Now()
	if *die > 0 {
		time.AfterFunc(*die, func() { fmt.Println("dying as told"); os.Exit(3) })
	}
	mux := http.NewServeMux()
	mux.HandleFunc("/health", func(w http.ResponseWriter, _ *http.Request) {
		if time.Since(begun) < *ready {
			w.WriteHeader(http.StatusServiceUnavailable)
			return
		}
		w.WriteHeader(*health)
	})
	host, _ := os.Hostname()
	mux.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("X-Replica", host)
		body, _ := io.ReadAll(r.Body)
		fmt.Fprintf(w, "%s %s %s\n", *text, r.Method, body)
	})
	mux.HandleFunc("/headers", func(w http.ResponseWriter, r *http.Request) {
		fmt.Fprintln(w, "Host:", r.Host)
		r.Header.Write(w)
	})
	mux.HandleFunc("/env", func(w http.ResponseWriter, _ *http.Request) {
		for _, pair := range os.Environ() {
			fmt.Fprintln(w, pair)
		}
	})
	mux.HandleFunc("/secrets/", func(w http.ResponseWriter, r *http.Request) {
		data, err := os.ReadFile("/run/" + path.Clean(r.URL.Path))
		if err != nil {
			http.Error(w, err.Error(), http.StatusNotFound)
			return
		}
		w.Write(data)
	})
	mux.HandleFunc("/slow", slow)
	mux.HandleFunc("/stream", stream)
	mux.HandleFunc("/echo", echo)
	mux.HandleFunc("/crash", func(http.ResponseWriter, *http.Request) { os.Exit(4) })
	server := &http.Server{Addr: net.JoinHostPort(*listen, strconv.Itoa(*port)), Handler: mux}
	fmt.Println("listening on", server.Addr)
	done := make(chan struct{})
	context.AfterFunc(ctx, func() { server.Shutdown(context.Background()); close(done) })
	if err := server.ListenAndServe(); !errors.Is(err, http.ErrServerClosed) {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	<-done
}

// slow answers after the duration in ?for=.
func slow(w http.ResponseWriter, r *http.Request) {
	d, _ := time.ParseDuration(r.URL.Query().Get("for"))
	select {
	case <-time.After(d):
		fmt.Fprintln(w, "slept", d)
	case <-r.Context().Done():
	}
}

// stream sends server-sent events, one every 50 ms, as many as ?n=.
func stream(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("Content-Type", "text/event-stream")
	n, _ := strconv.Atoi(r.URL.Query().Get("n"))
	for i := range n {
		fmt.Fprintf(w, "data: %d\n\n", i)
		http.NewResponseController(w).Flush()
		select {
		case <-time.After(50 * time.Millisecond):
		case <-r.Context().Done():
			return
		}
	}
}

// echo takes the connection over, as a WebSocket server does, and sends every line back.
func echo(w http.ResponseWriter, r *http.Request) {
	conn, buffered, err := http.NewResponseController(w).Hijack()
	if err != nil {
		return
	}
	defer conn.Close()
	io.WriteString(conn, "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: "+r.Header.Get("Upgrade")+"\r\n\r\n")
	lines := bufio.NewScanner(buffered)
	for lines.Scan() {
		fmt.Fprintf(conn, "echo %s\n", lines.Text())
	}
}
