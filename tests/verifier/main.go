// Command verifier checks what Hallpass's ledger gives out, without a line of
// Hallpass's code: a receipt, an export, or a published directory. It is built
// on golang.org/x/mod's sumdb/note and sumdb/tlog, which were written for the Go checksum database.
//
//	verifier receipt --key VKEY FILE
//	verifier export --key VKEY DIR
//	verifier tiles --key VKEY DIR
//
// It ends with 0 and one line on what it found, or with 1 and one line on what
// does not hold; 2 means that it was called wrongly.
package main

import (
	"flag"
	"fmt"
	"io"
	"os"
)

func main() {
	os.Exit(run(os.Args[1:], os.Stdout, os.Stderr))
}

func run(args []string, out, complain io.Writer) int {
	checks := map[string]func(key, path string) (string, error){
		"receipt": checkReceipt,
		"export":  checkExport,
		"tiles":   checkTiles,
	}
	if len(args) == 0 || checks[args[0]] == nil {
		fmt.Fprintln(complain, "usage: verifier receipt|export|tiles --key VKEY PATH")
		return 2
	}
	flags := flag.NewFlagSet(args[0], flag.ContinueOnError)
	flags.SetOutput(complain)
	key := flags.String("key", "", "the log's verifier key, as signed notes have it")
	if err := flags.Parse(args[1:]); err != nil || *key == "" || flags.NArg() != 1 {
		fmt.Fprintln(complain, "usage: verifier receipt|export|tiles --key VKEY PATH")
		return 2
	}
	found, err := checks[args[0]](*key, flags.Arg(0))
	if err != nil {
		fmt.Fprintf(complain, "%s: %v\n", flags.Arg(0), err)
		return 1
	}
	fmt.Fprintln(out, found)
	return 0
}
