package master

import (
	"bufio"
	"encoding/json"
	"fmt"
	"net"
	"os"
	"strings"
	"sync"

	"golang.org/x/sys/unix"
)

// playNode is a worker that speaks Node's cluster protocol by hand: it asks for a
// socket, listens, and goes when it is told to disconnect.
func playNode() int {
	f := os.NewFile(3, "channel")
	c, err := net.FileConn(f)
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	channel := c.(*net.UnixConn)
	say := func(line string) { fmt.Fprintln(channel, line) }
	say(`{"cmd":"NODE_CLUSTER","act":"online","seq":0}`)
	say(`{"cmd":"NODE_CLUSTER","act":"queryServer","index":0,"data":null,"address":"127.0.0.1","port":` + os.Getenv("PORT_TO_ASK") + `,"addressType":4,"flags":0,"backlog":0,"seq":1}`)
	var listener net.Listener
	var busy sync.WaitGroup
	buf, oob := make([]byte, 64<<10), make([]byte, 1024)
	rest := ""
	for {
		n, oobn, _, _, err := channel.ReadMsgUnix(buf, oob)
		if n == 0 || err != nil {
			return 0
		}
		var fds []int
		messages, _ := unix.ParseSocketControlMessage(oob[:oobn])
		for i := range messages {
			got, _ := unix.ParseUnixRights(&messages[i])
			fds = append(fds, got...)
		}
		rest += string(buf[:n])
		for strings.Contains(rest, "\n") {
			line, after, _ := strings.Cut(rest, "\n")
			rest = after
			var m struct {
				Cmd, Act, Type string
				Msg            struct {
					Ack, Seq int
					Key, Act string
				}
			}
			json.Unmarshal([]byte(line), &m)
			switch {
			case m.Cmd == "NODE_HANDLE" && m.Msg.Act == "newconn":
				say(`{"cmd":"NODE_HANDLE_ACK"}`)
				say(fmt.Sprintf(`{"cmd":"NODE_CLUSTER","ack":%d,"accepted":true,"seq":9}`, m.Msg.Seq))
				if c, err := net.FileConn(os.NewFile(uintptr(fds[0]), "")); err == nil {
					go func() { answer(c); c.Close() }()
				}
			case m.Cmd == "NODE_HANDLE" && len(fds) == 1 && listener == nil:
				say(`{"cmd":"NODE_HANDLE_ACK"}`)
				if listener, err = net.FileListener(os.NewFile(uintptr(fds[0]), "")); err != nil {
					return 1
				}
				unix.Close(fds[0])
				go accept(listener, &busy)
				say(`{"cmd":"NODE_CLUSTER","act":"listening","index":0,"data":null,"address":"127.0.0.1","port":` + os.Getenv("PORT_TO_ASK") + `,"addressType":4,"backlog":0,"seq":3}`)
			case m.Act == "disconnect":
				listener.Close()
				busy.Wait()
				say(`{"cmd":"NODE_CLUSTER","act":"exitedAfterDisconnect","seq":7}`)
				return 0
			case strings.Contains(line, `"hello"`): // a message of the control API comes back
				say(`{"echo":` + line + `}`)
			}
		}
	}
}

func accept(l net.Listener, busy *sync.WaitGroup) {
	for {
		c, err := l.Accept()
		if err != nil {
			return
		}
		busy.Add(1)
		go func() {
			defer busy.Done()
			defer c.Close()
			answerNode(c)
		}()
	}
}

func answerNode(c net.Conn) {
	line, _ := bufio.NewReader(c).ReadString('\n')
	if strings.TrimSpace(line) == "crash" {
		os.Exit(7)
	}
	fmt.Fprintf(c, "%s %s %d\n", os.Getenv("WORKER_ID"), os.Getenv("HANDOFF_GENERATION"), os.Getpid())
}
