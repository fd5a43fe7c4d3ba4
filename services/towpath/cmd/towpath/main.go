// Command towpath is everything: `towpath up`, and the commands that look at it and act on it.
package main

import (
	"os"

	"towpath.dev/services/towpath/cli"
)

func main() { os.Exit(cli.Main(os.Args[1:])) }
