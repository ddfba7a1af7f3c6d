package main

import (
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/mod/sumdb/tlog"
)

// tileHeight is that of c2sp.org/tlog-tiles: 256 hashes a tile.
const tileHeight = 8

// directory is a published log in the layout of c2sp.org/tlog-tiles.
type directory string

func (d directory) Height() int { return tileHeight }

func (d directory) SaveTiles([]tlog.Tile, [][]byte) {}

// ReadTiles reads tiles; a part is taken out of the full tile where that is there, as readers do.
func (d directory) ReadTiles(tiles []tlog.Tile) ([][]byte, error) {
	read := make([][]byte, 0, len(tiles))
	for _, tile := range tiles {
		data, err := d.read(tile, tile.W*tlog.HashSize)
		if err != nil {
			return nil, err
		}
		read = append(read, data)
	}
	return read, nil
}

// path is a tile's place: the layout of the Go checksum database without the tile's height, with another word for data.
func (d directory) path(tile tlog.Tile) string {
	path := strings.Replace(tile.Path(), fmt.Sprintf("tile/%d/", tileHeight), "tile/", 1)
	return filepath.Join(string(d), strings.Replace(path, "tile/data/", "tile/entries/", 1))
}

func (d directory) read(tile tlog.Tile, least int) ([]byte, error) {
	data, err := os.ReadFile(d.path(tile))
	if errors.Is(err, os.ErrNotExist) && tile.W < 1<<tileHeight {
		full := tile
		full.W = 1 << tileHeight
		data, err = os.ReadFile(d.path(full))
	}
	if err != nil {
		return nil, err
	}
	if len(data) < least {
		return nil, fmt.Errorf("%s has %d bytes", d.path(tile), len(data))
	}
	if least > 0 {
		data = data[:least]
	}
	return data, nil
}

// entries reads the first of a tile's entries.
func (d directory) entries(tile tlog.Tile) ([][]byte, error) {
	data, err := d.read(tile, 0)
	if err != nil {
		return nil, err
	}
	entries := make([][]byte, 0, tile.W)
	for len(entries) < tile.W {
		if len(data) < 2 || len(data)-2 < int(binary.BigEndian.Uint16(data)) {
			return nil, fmt.Errorf("%s ends within an entry", d.path(tile))
		}
		length := int(binary.BigEndian.Uint16(data))
		entries = append(entries, data[2:2+length])
		data = data[2+length:]
	}
	return entries, nil
}

// checkTiles reads a published log as c2sp.org/tlog-tiles says: every entry hashes to a leaf of the tiles, and the tiles
// lead to the root that the checkpoint signs.
func checkTiles(vkey, dir string) (string, error) {
	note, err := os.ReadFile(filepath.Join(dir, "checkpoint"))
	if err != nil {
		return "", err
	}
	keys, published := chain{given: vkey}, directory(dir)
	var stored []tlog.Hash
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
	size, err := unverifiedSize(note)
	if err != nil {
		return "", err
	}
	for first := int64(0); first < size; first += 1 << tileHeight {
		tile := tlog.Tile{H: tileHeight, L: -1, N: first >> tileHeight, W: int(min(size-first, 1<<tileHeight))}
		entries, err := published.entries(tile)
		if err != nil {
			return "", err
		}
		for n, entry := range entries {
			if err := keys.follow(entry, first+int64(n), read); err != nil {
				return "", fmt.Errorf("entry %d: %w", first+int64(n), err)
			}
			hashes, err := tlog.StoredHashesForRecordHash(first+int64(n), tlog.RecordHash(entry), read)
			if err != nil {
				return "", err
			}
			stored = append(stored, hashes...)
		}
	}
	newest, err := keys.newest()
	if err != nil {
		return "", err
	}
	head, err := openCheckpoint(newest, note)
	if err != nil {
		return "", err
	}
	if head.tree.N == 0 {
		return "an empty log", nil
	}
	// Reading a hash through the tiles proves each of them against the root that is signed.
	tiles := tlog.TileHashReader(head.tree, published)
	for n := int64(0); n < head.tree.N; n++ {
		index := tlog.StoredHashIndex(0, n)
		leaf, err := tiles.ReadHashes([]int64{index})
		if err != nil {
			return "", err
		}
		if leaf[0] != stored[index] {
			return "", fmt.Errorf("entry %d is not the one of the tiles", n)
		}
	}
	return fmt.Sprintf("%d published entries of %s are those of the checkpoint", head.tree.N, head.origin), nil
}

// unverifiedSize is what the note says; openCheckpoint holds it against the signature at the end.
func unverifiedSize(note []byte) (int64, error) {
	lines := strings.SplitN(string(note), "\n", 3)
	if len(lines) < 3 {
		return 0, errors.New("the checkpoint has no size")
	}
	return decimal(lines[1])
}
