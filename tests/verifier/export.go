package main

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"golang.org/x/mod/sumdb/tlog"
)

// manifest is manifest.json of an export. Its members stand in the order of their names, as in canonical JSON.
type manifest struct {
	FirstAt *string `json:"first_at"`
	From    int64   `json:"from"`
	LastAt  *string `json:"last_at"`
	Marks   string  `json:"marks"`
	Origin  string  `json:"origin"`
	Root    string  `json:"root"`
	Size    int64   `json:"size"`
	V       int     `json:"v"`
}

// checkExport computes an export's root from its lines and holds it against the signed checkpoint.
func checkExport(vkey, dir string) (string, error) {
	note, err := os.ReadFile(filepath.Join(dir, "checkpoint"))
	if err != nil {
		return "", err
	}
	data, err := os.ReadFile(filepath.Join(dir, "entries.jsonl"))
	if err != nil {
		return "", err
	}
	lines := bytes.SplitAfter(data, []byte("\n"))
	if last := len(lines) - 1; len(lines[last]) != 0 {
		return "", fmt.Errorf("line %d has no end", last)
	}
	lines = lines[:len(lines)-1]
	keys := chain{given: vkey}
	computed := manifest{V: 1}
	var stored []tlog.Hash
	var marks []byte
	read := tlog.HashReaderFunc(func(indexes []int64) ([]tlog.Hash, error) {
		found := make([]tlog.Hash, 0, len(indexes))
		for _, index := range indexes {
			if index >= int64(len(stored)) {
				return nil, errors.New("a hash of the tree is missing")
			}
			found = append(found, stored[index])
		}
		return found, nil
	})
	for n, line := range lines {
		entry := bytes.TrimSuffix(line, []byte("\n"))
		var told struct {
			At *string `json:"at"`
		}
		if err := json.Unmarshal(entry, &told); err != nil || told.At == nil {
			return "", fmt.Errorf("line %d is no entry", n)
		}
		if computed.FirstAt == nil {
			computed.FirstAt = told.At
		}
		computed.LastAt = told.At
		if err := keys.follow(entry, int64(n), read); err != nil {
			return "", fmt.Errorf("line %d: %w", n, err)
		}
		leaf := tlog.RecordHash(entry)
		marks = append(marks, leaf[:4]...)
		hashes, err := tlog.StoredHashesForRecordHash(int64(n), leaf, read)
		if err != nil {
			return "", err
		}
		stored = append(stored, hashes...)
	}
	newest, err := keys.newest()
	if err != nil {
		return "", err
	}
	head, err := openCheckpoint(newest, note)
	if err != nil {
		return "", err
	}
	if int64(len(lines)) != head.tree.N {
		return "", fmt.Errorf("the checkpoint speaks of %d entries, there are %d", head.tree.N, len(lines))
	}
	computed.Origin, computed.Size, computed.Root = head.origin, head.tree.N, fmt.Sprintf("%x", head.tree.Hash[:])
	if head.tree.N > 0 {
		root, err := tlog.TreeHash(head.tree.N, read)
		if err != nil {
			return "", err
		}
		if root != head.tree.Hash {
			return "", errors.New("the entries are not those of the checkpoint")
		}
	}
	computed.Marks = base64.StdEncoding.EncodeToString(marks)
	if err := compareManifest(filepath.Join(dir, "manifest.json"), computed); err != nil {
		return "", err
	}
	return fmt.Sprintf("%d entries of %s are those of the checkpoint", head.tree.N, head.origin), nil
}

// compareManifest computes the manifest's bytes anew: every member follows from the entries and the checkpoint.
func compareManifest(path string, computed manifest) error {
	found, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	var want bytes.Buffer
	encoder := json.NewEncoder(&want)
	encoder.SetEscapeHTML(false)
	if err := encoder.Encode(computed); err != nil {
		return err
	}
	if !bytes.Equal(want.Bytes(), found) {
		return errors.New("the manifest is not that of these entries")
	}
	return nil
}
