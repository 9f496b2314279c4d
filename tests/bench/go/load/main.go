// load POSTs one body again and again over -c kept-alive connections, each sending its next request when the last was
// answered (a closed loop), and compares every answer, byte for byte, with the one it is told to expect. A request that
// has begun is always waited for, so that the time and the CPU of a run belong to the answers it counts.
//
// It prints one line of JSON. HTTP is spoken by hand: what net/http costs would be taken from the servers measured.
package main

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"log"
	"net"
	"net/url"
	"os"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"time"
)

func main() {
	target := flag.String("url", "", "where to POST to, http://host:port/path")
	bodyFile := flag.String("body", "", "file with the request's body")
	answerFile := flag.String("answer", "", "file with the answer to expect")
	headers := flag.String("headers", "", "further header lines of the request")
	connections := flag.Int("c", 1, "connections")
	seconds := flag.Float64("seconds", 0, "begin no request after this time (0: no such limit)")
	requests := flag.Int64("requests", 0, "send so many requests (0: no such limit)")
	flag.Parse()

	body, err := os.ReadFile(*bodyFile)
	must(err)
	answer, err := os.ReadFile(*answerFile)
	must(err)
	to, err := url.Parse(*target)
	must(err)
	request := fmt.Appendf(nil, "POST %s HTTP/1.1\r\nHost: %s\r\nContent-Length: %d\r\n%s\r\n",
		to.RequestURI(), to.Host, len(body), *headers)
	request = append(request, body...)

	run := &run{address: to.Host, request: request, answer: answer, limit: *requests}
	begun := time.Now()
	if *seconds > 0 {
		run.end = begun.Add(time.Duration(*seconds * float64(time.Second)))
	} else if *requests == 0 {
		log.Fatal("give -seconds or -requests")
	}
	var all []time.Duration
	var lock sync.Mutex
	var group sync.WaitGroup
	for range *connections {
		group.Go(func() {
			taken := run.loop()
			lock.Lock()
			defer lock.Unlock()
			all = append(all, taken...)
		})
	}
	group.Wait()
	wall := time.Since(begun)
	slices.Sort(all)
	quantile := func(q float64) float64 {
		if len(all) == 0 {
			return 0
		}
		return all[int(float64(len(all)-1)*q)].Seconds()
	}
	must(json.NewEncoder(os.Stdout).Encode(map[string]any{
		"requests": len(all), "failures": run.failures.Load(), "first_failure": run.first, "seconds": wall.Seconds(),
		"p50": quantile(0.5), "p99": quantile(0.99), "max": quantile(1),
	}))
}

type run struct {
	address  string
	request  []byte
	answer   []byte
	end      time.Time
	limit    int64
	sent     atomic.Int64
	failures atomic.Int64
	once     sync.Once
	first    string
}

// loop is one connection's; it gives the time that each right answer took, and ends at its first failure.
func (r *run) loop() (taken []time.Duration) {
	connection, err := net.Dial("tcp", r.address)
	if err != nil {
		r.fail(err)
		return nil
	}
	defer connection.Close()
	reader := bufio.NewReaderSize(connection, 64<<10)
	buffer := make([]byte, len(r.answer))
	for r.more() {
		begun := time.Now()
		if _, err := connection.Write(r.request); err != nil {
			r.fail(err)
			return taken
		}
		if err := r.read(reader, buffer); err != nil {
			r.fail(err)
			return taken
		}
		taken = append(taken, time.Since(begun))
	}
	return taken
}

func (r *run) more() bool {
	if !r.end.IsZero() && !time.Now().Before(r.end) {
		return false
	}
	return r.limit == 0 || r.sent.Add(1) <= r.limit
}

func (r *run) fail(err error) {
	r.failures.Add(1)
	r.once.Do(func() { r.first = err.Error() })
}

var contentLength = []byte("content-length:")

// read takes one answer off the connection: status 200, a Content-Length, and the very bytes expected.
func (r *run) read(reader *bufio.Reader, buffer []byte) error {
	line, err := reader.ReadSlice('\n')
	if err != nil {
		return err
	}
	if len(line) < 12 || string(line[9:12]) != "200" {
		return fmt.Errorf("answered %q", bytes.TrimSpace(line))
	}
	size := -1
	for {
		line, err := reader.ReadSlice('\n')
		if err != nil {
			return err
		}
		line = bytes.TrimSpace(line)
		if len(line) == 0 {
			break
		}
		if len(line) > len(contentLength) && bytes.EqualFold(line[:len(contentLength)], contentLength) {
			if size, err = strconv.Atoi(string(bytes.TrimSpace(line[len(contentLength):]))); err != nil {
				return err
			}
		}
	}
	if size != len(r.answer) {
		return fmt.Errorf("an answer of %d bytes, expected %d", size, len(r.answer))
	}
	if _, err := io.ReadFull(reader, buffer); err != nil {
		return err
	}
	if !bytes.Equal(buffer, r.answer) {
		return errors.New("another answer than expected")
	}
	return nil
}

func must(err error) {
	if err != nil {
		log.Fatal(err)
	}
}
