package build

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path"
	"path/filepath"
	"strconv"
	"strings"

	"towpath.dev/events"
)

// writeSubmodules fetches and writes what a commit's tree points at in other repositories, and in
// theirs. under is the folder of that tree, from the root of the source.
func (co *checkout) writeSubmodules(ctx context.Context, g *git, links []Submodule, holder repositoryURL, commit, under string, depth int) error {
	if len(links) == 0 {
		return nil
	}
	if depth > maxDepth {
		return authorActs(events.Trouble{What: "fetching submodules", On: under, Why: fmt.Sprintf("they are more than %d deep", maxDepth)})
	}
	addresses, err := submoduleURLs(ctx, g, commit)
	if err != nil {
		return err
	}
	for _, link := range links {
		full := path.Join(under, link.Path)
		address, ok := addresses[link.Path]
		if !ok {
			return authorActs(events.Trouble{What: "fetching submodule " + full, Why: "its commit is in the tree, and .gitmodules does not say where from",
				Do: "add it to .gitmodules, or take it out of the tree, and push"})
		}
		from, err := holder.resolve(address)
		if err != nil {
			return err
		}
		if err := co.mayHold(full, from); err != nil {
			return err
		}
		if len(co.Submodules) == maxSubmodules {
			return authorActs(events.Trouble{What: "fetching submodules", Why: fmt.Sprintf("there are more than %d", maxSubmodules)})
		}
		co.Submodules = append(co.Submodules, Submodule{Path: full, URL: from.text, Commit: link.Commit})
		if err := co.writeSubmodule(ctx, from, link.Commit, full, depth); err != nil {
			return fmt.Errorf("submodule %s: %w", full, err)
		}
	}
	return nil
}

// mayHold keeps a repository's author from reading other repositories of this machine by naming them as
// submodules.
func (co *checkout) mayHold(where string, from repositoryURL) error {
	if from.scheme != "file" || from.below(co.share) {
		return nil
	}
	return authorActs(events.Trouble{
		What: "fetching submodule " + where, On: from.text, Why: "it is a folder of the build machine that the platform does not share",
		Do: "give it an http(s) or ssh address in .gitmodules, or ask the platform's operator to share the folder, and push",
	})
}

func (co *checkout) writeSubmodule(ctx context.Context, from repositoryURL, commit, at string, depth int) error {
	dir := filepath.Join(co.root, "git-"+strconv.Itoa(len(co.Submodules)))
	if err := os.Mkdir(dir, 0o700); err != nil {
		return err
	}
	g, err := newGit(ctx, dir, filepath.Join(co.root, "home"), co.access)
	if err != nil {
		return err
	}
	if err := co.fetchCommit(ctx, g, from, "", commit); err != nil {
		return err
	}
	if err := co.makeFolder(at); err != nil {
		return err
	}
	return co.writeTree(ctx, g, from, commit, at, depth+1)
}

// makeFolder makes the folder of a submodule without following a link out of the source.
func (co *checkout) makeFolder(at string) error {
	root, err := os.OpenRoot(co.tree)
	if err != nil {
		return err
	}
	defer root.Close()
	made := ""
	for part := range strings.SplitSeq(at, "/") {
		made = path.Join(made, part)
		if err := root.Mkdir(made, 0o755); err != nil && !errors.Is(err, os.ErrExist) {
			return err
		}
		if info, err := root.Lstat(made); err != nil || !info.IsDir() {
			return authorActs(events.Trouble{What: "fetching submodule " + at, Why: made + " is not a folder"})
		}
	}
	return nil
}

// submoduleURLs reads .gitmodules as it is in the commit: path to address.
func submoduleURLs(ctx context.Context, g *git, commit string) (map[string]string, error) {
	out, err := g.run(ctx, "config", "--blob", commit+":.gitmodules", "-z", "--get-regexp", `^submodule\..*\.(path|url)$`)
	var failed *gitError
	if errors.As(err, &failed) {
		return nil, nil // no such file, or nothing in it: the caller says which submodule lacks its address
	}
	if err != nil {
		return nil, err
	}
	paths, urls := map[string]string{}, map[string]string{}
	for entry := range strings.SplitSeq(string(out), "\x00") {
		key, value, _ := strings.Cut(entry, "\n")
		if name, ok := strings.CutSuffix(key, ".path"); ok {
			paths[name] = value
		} else if name, ok := strings.CutSuffix(key, ".url"); ok {
			urls[name] = value
		}
	}
	addresses := map[string]string{}
	for name, where := range paths {
		if address, ok := urls[name]; ok {
			addresses[where] = address
		}
	}
	return addresses, nil
}
