// Command bot is a chat bot as somebody might write one, with nothing of Towpath's own code: it hears notifications, and
// says what people of its chat say, over HTTP (CloudEvents in structured mode) or over the bus (binary mode).
//
//	bot say [-via http|bus] [-as CHANNEL:ID] [-id ID] [-at TIME] VERB APP/RUN [STAGE] [ENV]
//	bot listen [-via http|bus] [-as CHANNEL:ID] URLFILE LOG
//
// say prints the answer; it ends with 4 where that is a refusal, and with 1 where there is none. listen writes where it
// listens into URLFILE and what it hears into LOG. Where an approval is wanted it first asks in its own right, which must
// not count, and then for the person that -as names. TOWPATH_URL and the file BOT_TOKEN say where and who; on
// the bus BOT_BUS, the file BOT_KEY, and BOT_ID.
package main

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"os/signal"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/nats-io/nats.go"
)

const commandType = "dev.cdeventsx.towpath-command.received.0.1.0"

// patience bounds everything that the bot waits for.
const patience = 30 * time.Second

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	code, err := run(ctx, os.Args[1:])
	if err != nil {
		fmt.Fprintln(os.Stderr, "bot:", err)
	}
	os.Exit(code)
}

func run(ctx context.Context, args []string) (code int, err error) {
	if len(args) == 0 {
		return 2, errors.New("say or listen")
	}
	set := flag.NewFlagSet(args[0], flag.ContinueOnError)
	via := set.String("via", "http", "http or bus")
	as := set.String("as", "", "the person for whom the bot speaks")
	id := set.String("id", rand.Text(), "the command's id")
	at := set.Duration("at", 0, "how far the event's time is from now")
	if err := set.Parse(args[1:]); err != nil {
		return 2, err
	}
	b := bot{via: *via, as: *as}
	switch rest := set.Args(); {
	case args[0] == "say" && len(rest) >= 2:
		status, answer, err := b.say(ctx, *id, time.Now().Add(*at), command(*as, rest))
		if err != nil {
			return 1, err
		}
		fmt.Println(answer)
		if status >= 400 {
			return 4, nil
		}
		return 0, nil
	case args[0] == "listen" && len(rest) == 2:
		if err := b.listen(ctx, rest[0], rest[1]); err != nil {
			return 1, err
		}
		return 0, nil
	}
	return 2, errors.New("say VERB APP/RUN [STAGE] [ENV], or listen URLFILE LOG")
}

type bot struct{ via, as string }

// command reads what a person typed.
func command(as string, words []string) map[string]any {
	app, number, _ := strings.Cut(words[1], "/")
	content := map[string]any{"verb": words[0], "app": app}
	if n, err := strconv.Atoi(number); err == nil {
		content["run"] = n
	}
	for _, word := range words[2:] {
		switch word {
		case "build", "vet", "promote", "verify":
			content["stage"] = word
		default:
			content["environment"] = word
		}
	}
	if as != "" {
		content["onBehalfOf"] = as
	}
	return content
}

// say sends a command and returns the answer.
func (b bot) say(ctx context.Context, id string, at time.Time, content map[string]any) (status int, answer string, err error) {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	when := at.UTC().Format(time.RFC3339Nano)
	attributes := map[string]any{"specversion": "1.0", "id": rand.Text(), "source": "/bots/example", "type": commandType, "subject": id, "time": when}
	data := map[string]any{
		"context": map[string]any{"specversion": "0.5.1", "id": attributes["id"], "source": attributes["source"], "type": commandType, "timestamp": when},
		"subject": map[string]any{"id": id, "content": content},
	}
	if b.via == "bus" {
		return overBus(ctx, attributes, data)
	}
	attributes["datacontenttype"], attributes["data"] = "application/json", data
	body, err := json.Marshal(attributes)
	if err != nil {
		return 0, "", err
	}
	request, err := http.NewRequestWithContext(ctx, http.MethodPost, os.Getenv("TOWPATH_URL")+"/v1/events", bytes.NewReader(body))
	if err != nil {
		return 0, "", err
	}
	token, err := os.ReadFile(os.Getenv("BOT_TOKEN"))
	if err != nil {
		return 0, "", err
	}
	request.Header.Set("Authorization", "Bearer "+strings.TrimSpace(string(token)))
	request.Header.Set("Content-Type", "application/cloudevents+json")
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		return 0, "", err
	}
	defer response.Body.Close()
	text, err := io.ReadAll(io.LimitReader(response.Body, 1<<20))
	return response.StatusCode, strings.TrimSpace(string(text)), err
}

// overBus sends a command in binary mode on the bot's own subject. A bot that was let in a moment ago may have to knock
// more than once.
func overBus(ctx context.Context, attributes, data map[string]any) (status int, answer string, err error) {
	key, err := nats.NkeyOptionFromSeed(os.Getenv("BOT_KEY"))
	if err != nil {
		return 0, "", err
	}
	m := nats.NewMsg("command." + os.Getenv("BOT_ID") + ".received")
	for name, value := range attributes {
		m.Header["ce-"+name] = []string{url.PathEscape(value.(string))}
	}
	if m.Data, err = json.Marshal(data); err != nil {
		return 0, "", err
	}
	for {
		status, answer, err = request(ctx, key, m)
		if err == nil || ctx.Err() != nil {
			return status, answer, err
		}
		select {
		case <-time.After(200 * time.Millisecond):
		case <-ctx.Done():
			return 0, "", err
		}
	}
}

func request(ctx context.Context, key nats.Option, m *nats.Msg) (status int, answer string, err error) {
	conn, err := nats.Connect(os.Getenv("BOT_BUS"), key)
	if err != nil {
		return 0, "", err
	}
	defer conn.Close()
	reply, err := conn.RequestMsgWithContext(ctx, m)
	if err != nil {
		return 0, "", err
	}
	status, err = strconv.Atoi(reply.Header.Get("Towpath-Status"))
	return status, string(reply.Data), err
}

// listen hears notifications until the bot is told to end.
func (b bot) listen(ctx context.Context, urlFile, log string) error {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	out, err := os.OpenFile(log, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	defer out.Close()
	heard := &hearing{bot: b, out: out, known: map[string]bool{}}
	server := &http.Server{Handler: heard, ReadHeaderTimeout: patience}
	if err := os.WriteFile(urlFile, []byte("http://"+listener.Addr().String()+"/hook/SECRETHOOK\n"), 0o600); err != nil {
		return err
	}
	stop := context.AfterFunc(ctx, func() { server.Close() })
	defer stop()
	if err := server.Serve(listener); !errors.Is(err, http.ErrServerClosed) {
		return err
	}
	return nil
}

// hearing is what came in so far.
type hearing struct {
	bot bot
	mu  sync.Mutex
	out io.Writer
	// known are the ids of what came in: the same may come again.
	known map[string]bool
}

func (h *hearing) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	var message struct {
		Text   string
		Blocks []struct{ Text struct{ Text string } }
	}
	if err := json.NewDecoder(io.LimitReader(r.Body, 1<<20)).Decode(&message); err != nil || len(message.Blocks) == 0 {
		http.Error(w, "no message", http.StatusBadRequest)
		return
	}
	kind, run, env := r.Header.Get("Towpath-Kind"), r.Header.Get("Towpath-Run"), r.Header.Get("Towpath-Environment")
	h.mu.Lock()
	defer h.mu.Unlock()
	if id := r.Header.Get("Towpath-Notification-Id"); h.known[id] {
		return
	} else {
		h.known[id] = true
	}
	fmt.Fprintf(h.out, "%s %s %s: %s → %s\n", kind, run, env, message.Text, r.Header.Get("Towpath-Command"))
	fmt.Fprintf(h.out, "shown: %s\n", message.Blocks[0].Text.Text)
	if kind != "approval" || h.bot.as == "" {
		return
	}
	for _, as := range []string{"", h.bot.as} {
		_, answer, err := h.bot.say(r.Context(), rand.Text(), time.Now(), command(as, []string{"approve", run, env}))
		fmt.Fprintf(h.out, "approving %s as %q: %s %v\n", run, as, answer, err)
	}
}
