package identity

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/nats-io/nkeys"

	"towpath.dev/events"
	"towpath.dev/pkg/wholefile"
)

// botsFolder holds the public bus keys of bots, one file for each, in the installation's keys folder. The private
// half is the bot's alone.
const botsFolder = "bots"

const botKeySuffix = ".pub"

// BotKey is the public half of a bot's bus key.
type BotKey struct {
	ID     events.Slug // of the actor that the bot is
	Public string      // NATS public user key, "U…"
}

// ErrBotHasKey is wrapped where a bot has a bus key already.
var ErrBotHasKey = errors.New("it has a bus key already")

// AddBot makes a bus key for a bot, keeps its public half in dir, and returns the private one, which is kept nowhere.
// The bus lets the bot in once its configuration was written again. The error wraps ErrBotHasKey.
func AddBot(dir string, id events.Slug) (seed []byte, err error) {
	if _, err := events.ParseSlug(string(id)); err != nil {
		return nil, fmt.Errorf("making a bus key of a bot: %w", err)
	}
	pair, err := nkeys.CreateUser()
	if err != nil {
		return nil, err
	}
	public, err := pair.PublicKey()
	if err != nil {
		return nil, err
	}
	if seed, err = pair.Seed(); err != nil {
		return nil, err
	}
	path := botKeyPath(dir, id)
	if _, err := os.Stat(path); !errors.Is(err, fs.ErrNotExist) {
		return nil, errors.Join(fmt.Errorf("making a bus key of %s: %w", id, ErrBotHasKey), err)
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return nil, fmt.Errorf("making a bus key of %s: %w", id, err)
	}
	if err := wholefile.Write(path, []byte(public+"\n"), 0o644); err != nil {
		return nil, fmt.Errorf("making a bus key of %s: %w", id, err)
	}
	return seed, nil
}

// RemoveBot takes a bot's bus key away. The error wraps fs.ErrNotExist where it has none.
func RemoveBot(dir string, id events.Slug) error {
	if _, err := events.ParseSlug(string(id)); err != nil {
		return fmt.Errorf("taking a bus key away: %w", err)
	}
	if err := os.Remove(botKeyPath(dir, id)); err != nil {
		return fmt.Errorf("taking the bus key of %s away: %w", id, err)
	}
	return nil
}

// Bots returns the bots that have a bus key, by id.
func Bots(dir string) ([]BotKey, error) {
	entries, err := os.ReadDir(filepath.Join(dir, botsFolder))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("reading the bots' bus keys: %w", err)
	}
	var bots []BotKey
	for _, entry := range entries {
		name, ok := strings.CutSuffix(entry.Name(), botKeySuffix)
		if !ok {
			continue
		}
		path := filepath.Join(dir, botsFolder, entry.Name())
		id, err := events.ParseSlug(name)
		if err != nil {
			return nil, fmt.Errorf("the bus key %s is named for no bot: %w", path, err)
		}
		data, err := os.ReadFile(path)
		if err != nil {
			return nil, fmt.Errorf("reading the bus key of %s: %w", id, err)
		}
		public := strings.TrimSpace(string(data))
		if !nkeys.IsValidPublicUserKey(public) {
			return nil, fmt.Errorf("%s holds no public bus key: take it away, and make one with towpath keys bot", path)
		}
		bots = append(bots, BotKey{id, public})
	}
	slices.SortFunc(bots, func(a, b BotKey) int { return strings.Compare(string(a.ID), string(b.ID)) })
	return bots, nil
}

func botKeyPath(dir string, id events.Slug) string {
	return filepath.Join(dir, botsFolder, string(id)+botKeySuffix)
}
