// SPDX-License-Identifier: MIT

// Pekod runs one PekoNode node and obeys lines on its standard input, each answered by one line:
//
//	get            the node list as JSON
//	read           "hex:" and the metadata in hexadecimal
//	publish HEX    publish metadata given in hexadecimal
//	stop, start    heartbeats off and on
//	set ADDR PORT  add a node to the list
//	quit           end (so does the end of the input)
package main

import (
	"bufio"
	"encoding/hex"
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"strconv"
	"strings"

	"github.com/dpwgc/pekonode"
)

func main() {
	addr := flag.String("addr", "127.0.0.1", "address to listen on and to announce")
	port := flag.Int("port", 8000, "port")
	name := flag.String("name", "", "node name")
	data := flag.String("data", "", "private data")
	protocol := flag.String("protocol", "UDP", "UDP or TCP")
	key := flag.String("key", "", "secret key of the cluster")
	cycle := flag.Int64("cycle", 1, "seconds between heartbeats")
	amount := flag.Int("amount", 3, "fan-out")
	seeds := flag.String("seeds", "", "nodes to contact: ADDR:PORT,...")
	flag.Parse()

	list := pekonode.NodeList{
		Amount: *amount, Cycle: *cycle, SecretKey: *key, Protocol: *protocol, ListenAddr: *addr,
	}
	list.New(pekonode.Node{Addr: *addr, Port: *port, Name: *name, PrivateData: *data})
	for _, seed := range strings.Split(*seeds, ",") {
		if colon := strings.LastIndex(seed, ":"); colon > 0 {
			set(&list, seed[:colon], seed[colon+1:])
		}
	}
	list.Join()

	input := bufio.NewScanner(os.Stdin)
	input.Buffer(make([]byte, 1<<20), 1<<20)
	for input.Scan() {
		words := strings.Fields(input.Text())
		if len(words) == 0 {
			continue
		}
		if words[0] == "quit" {
			return
		}
		fmt.Println(obey(&list, words))
	}
}

func obey(list *pekonode.NodeList, words []string) string {
	switch {
	case words[0] == "get":
		answer, _ := json.Marshal(list.Get())
		return string(answer)
	case words[0] == "read":
		return "hex:" + hex.EncodeToString(list.Read())
	case words[0] == "publish" && len(words) == 2:
		value, err := hex.DecodeString(words[1])
		if err != nil {
			return "error: " + err.Error()
		}
		list.Publish(value)
	case words[0] == "stop":
		list.Stop()
	case words[0] == "start":
		list.Start()
	case words[0] == "set" && len(words) == 3:
		set(list, words[1], words[2])
	default:
		return "error: unknown command"
	}
	return "ok"
}

func set(list *pekonode.NodeList, addr string, port string) {
	number, err := strconv.Atoi(port)
	if err != nil {
		fmt.Fprintln(os.Stderr, "bad port:", port)
		os.Exit(2)
	}
	list.Set(pekonode.Node{Addr: addr, Port: number})
}
