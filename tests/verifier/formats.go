package main

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"

	"golang.org/x/mod/sumdb/note"
	"golang.org/x/mod/sumdb/tlog"
)

// head is a tree head that the log's key has signed.
type head struct {
	origin string
	tree   tlog.Tree
}

// openCheckpoint checks the signature and reads the three lines of c2sp.org/tlog-checkpoint.
func openCheckpoint(vkey string, msg []byte) (head, error) {
	verifier, err := note.NewVerifier(vkey)
	if err != nil {
		return head{}, fmt.Errorf("the key: %w", err)
	}
	opened, err := note.Open(msg, note.VerifierList(verifier))
	if err != nil {
		return head{}, fmt.Errorf("the checkpoint: %w", err)
	}
	for _, sig := range append(opened.Sigs, opened.UnverifiedSigs...) {
		if _, err := decode(sig.Base64); err != nil {
			return head{}, fmt.Errorf("the checkpoint: a signature line: %w", err)
		}
	}
	lines := strings.Split(opened.Text, "\n")
	if len(lines) != 4 || lines[3] != "" {
		return head{}, fmt.Errorf("the checkpoint has %d lines, not three", len(lines)-1)
	}
	if lines[0] != verifier.Name() {
		return head{}, errors.New("the checkpoint's origin is not the key's name")
	}
	size, err := decimal(lines[1])
	if err != nil {
		return head{}, fmt.Errorf("the checkpoint's size: %w", err)
	}
	root, err := hash(lines[2])
	if err != nil {
		return head{}, fmt.Errorf("the checkpoint's root: %w", err)
	}
	return head{origin: lines[0], tree: tlog.Tree{N: size, Hash: root}}, nil
}

// proof is a c2sp.org/tlog-proof.
type proof struct {
	index      int64
	hashes     tlog.RecordProof
	checkpoint []byte
}

func parseProof(text string) (proof, error) {
	top, checkpoint, found := strings.Cut(text, "\n\n")
	lines := strings.Split(top, "\n")
	if !found || len(lines) < 2 || lines[0] != "c2sp.org/tlog-proof@v1" {
		return proof{}, errors.New("no tlog-proof")
	}
	number, found := strings.CutPrefix(lines[1], "index ")
	if !found {
		return proof{}, errors.New("no index in the proof")
	}
	index, err := decimal(number)
	if err != nil {
		return proof{}, fmt.Errorf("the proof's index: %w", err)
	}
	parsed := proof{index: index, checkpoint: []byte(checkpoint)}
	for _, line := range lines[2:] {
		next, err := hash(line)
		if err != nil {
			return proof{}, fmt.Errorf("the proof's hashes: %w", err)
		}
		parsed.hashes = append(parsed.hashes, next)
	}
	return parsed, nil
}

// decode reads base64 that has exactly the spelling an encoder gives it.
func decode(text string) ([]byte, error) {
	raw, err := base64.StdEncoding.DecodeString(text)
	if err != nil {
		return nil, err
	}
	if base64.StdEncoding.EncodeToString(raw) != text {
		return nil, errors.New("base64 with bits to spare")
	}
	return raw, nil
}

func hash(text string) (tlog.Hash, error) {
	var parsed tlog.Hash
	raw, err := decode(text)
	if err != nil {
		return parsed, err
	}
	if copy(parsed[:], raw) != len(raw) || len(raw) != tlog.HashSize {
		return parsed, fmt.Errorf("%d bytes are no SHA-256", len(raw))
	}
	return parsed, nil
}

func decimal(text string) (int64, error) {
	number, err := strconv.ParseInt(text, 10, 64)
	if err != nil {
		return 0, err
	}
	if number < 0 || strconv.FormatInt(number, 10) != text {
		return 0, fmt.Errorf("%q is not how the number is written", text)
	}
	return number, nil
}

// readObject reads one JSON object whose members are all known.
func readObject(data []byte, into any) error {
	decoder := json.NewDecoder(bytes.NewReader(data))
	decoder.DisallowUnknownFields()
	if err := decoder.Decode(into); err != nil {
		return err
	}
	if _, err := decoder.Token(); err != io.EOF {
		return errors.New("something follows the object")
	}
	return nil
}
