package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"strings"

	"golang.org/x/mod/sumdb/note"
	"golang.org/x/mod/sumdb/tlog"
)

// chain is the keys that the entries tell of, each handed over to by the one before it.
type chain struct {
	given string
	keys  []string
}

// follow reads an entry at an index; one that tells of another key must hold the checkpoint by which both vouch for it.
func (c *chain) follow(entry []byte, index int64, read tlog.HashReader) error {
	var told struct {
		Code   string `json:"code"`
		Result struct {
			Key        string `json:"key"`
			Old        string `json:"old"`
			New        string `json:"new"`
			Checkpoint string `json:"checkpoint"`
		} `json:"result"`
	}
	if err := json.Unmarshal(entry, &told); err != nil || told.Code != "KEY_ROTATED" || told.Result.Key != "ledger" {
		// Whether it is an entry at all is asked elsewhere; other entries may have a result of another shape.
		return nil
	}
	var verifiers []note.Verifier
	for _, key := range []string{told.Result.Old, told.Result.New} {
		verifier, err := note.NewVerifier(key)
		if err != nil {
			return fmt.Errorf("a key of the change: %w", err)
		}
		verifiers = append(verifiers, verifier)
	}
	opened, err := note.Open([]byte(told.Result.Checkpoint), note.VerifierList(verifiers...))
	if err != nil {
		return fmt.Errorf("the checkpoint of the change: %w", err)
	}
	if len(opened.Sigs) != 2 || told.Result.Old == told.Result.New {
		return errors.New("not both keys vouch for the change")
	}
	root := tlog.Hash{}
	if index > 0 {
		if root, err = tlog.TreeHash(index, read); err != nil {
			return err
		}
	}
	text := fmt.Sprintf("%s\n%d\n%s\nnext-key %s\n", verifiers[0].Name(), index, root, told.Result.New)
	if index > 0 && opened.Text != text {
		return errors.New("the checkpoint of the change is not of the entries before it, or names another key")
	}
	if last := len(c.keys) - 1; last < 0 {
		c.keys = append(c.keys, told.Result.Old)
	} else if c.keys[last] != told.Result.Old {
		return errors.New("the key that ends is not the one that the log had")
	}
	c.keys = append(c.keys, told.Result.New)
	return nil
}

// newest is the key that must have signed the checkpoint; the given one must be one of the log's.
func (c *chain) newest() (string, error) {
	given := strings.TrimSpace(c.given)
	if len(c.keys) == 0 {
		return given, nil
	}
	for _, key := range c.keys {
		if key == given {
			return c.keys[len(c.keys)-1], nil
		}
	}
	return "", errors.New("the given key is none of those that the entries tell of")
}
