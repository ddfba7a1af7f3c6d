package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"

	"golang.org/x/mod/sumdb/tlog"
)

// checkReceipt holds a receipt, as an exchange answers it, against the log's key.
func checkReceipt(vkey, path string) (string, error) {
	data, err := os.ReadFile(path)
	if err != nil {
		return "", err
	}
	var receipt struct {
		Issuance string `json:"issuance"`
		Index    int64  `json:"index"`
		Entry    string `json:"entry"`
		Proof    string `json:"proof"`
	}
	if err := readObject(data, &receipt); err != nil {
		return "", fmt.Errorf("no receipt: %w", err)
	}
	entry, err := decode(receipt.Entry)
	if err != nil {
		return "", fmt.Errorf("the entry: %w", err)
	}
	proof, err := parseProof(receipt.Proof)
	if err != nil {
		return "", err
	}
	if proof.index != receipt.Index {
		return "", errors.New("the receipt's index is not the proof's")
	}
	head, err := openCheckpoint(vkey, proof.checkpoint)
	if err != nil {
		return "", err
	}
	if err := tlog.CheckRecord(proof.hashes, head.tree.N, head.tree.Hash, proof.index, tlog.RecordHash(entry)); err != nil {
		return "", fmt.Errorf("the proof does not hold: %w", err)
	}
	var told struct {
		Issuance string `json:"issuance"`
		Code     string `json:"code"`
	}
	if err := json.Unmarshal(entry, &told); err != nil {
		return "", fmt.Errorf("the entry is not JSON: %w", err)
	}
	if told.Issuance != receipt.Issuance {
		return "", errors.New("the receipt's issuance is not the entry's")
	}
	return fmt.Sprintf("entry %d (%s of %s) is in %s of %d entries", proof.index, told.Code, told.Issuance, head.origin, head.tree.N), nil
}
