// A service as users write them: Spring Boot with its web starter, the actuator and Micrometer's registry for Prometheus.
//
// PUT /fault/KIND/VALUE spoils the instance: `garbage` makes so many megabytes of it a second while half of the heap is held, `slow`
// takes milliseconds more, `fail` answers 503.
package shop;

import java.util.Map;
import java.util.concurrent.ConcurrentHashMap;
import java.util.concurrent.ThreadLocalRandom;
import org.springframework.boot.SpringApplication;
import org.springframework.boot.autoconfigure.SpringBootApplication;
import org.springframework.http.ResponseEntity;
import org.springframework.web.bind.annotation.GetMapping;
import org.springframework.web.bind.annotation.PathVariable;
import org.springframework.web.bind.annotation.PutMapping;
import org.springframework.web.bind.annotation.RestController;

@SpringBootApplication
@RestController
public class Service {
    private static final Map<String, Long> faults = new ConcurrentHashMap<>();

    public static void main(String[] arguments) {
        SpringApplication.run(Service.class, arguments);
    }

    @GetMapping("/")
    public ResponseEntity<String> answer() throws InterruptedException {
        Thread.sleep(5 + faults.getOrDefault("slow", 0L));
        int status = faults.getOrDefault("fail", 0L) > 0 ? 503 : 200;
        String name = System.getProperty("instance");
        return ResponseEntity.status(status).header("x-pod", name).body("served by " + name);
    }

    @PutMapping("/fault/{kind}/{value}")
    public void spoil(@PathVariable("kind") String kind, @PathVariable("value") long value) {
        faults.put(kind, value);
        if (kind.equals("garbage") && value > 0) {
            Thread worker = new Thread(Service::litter);
            worker.setDaemon(true);
            worker.start();
        }
    }

    /** Small objects, half of the heap of them alive at a time, so that a collection has work to do. */
    private static void litter() {
        byte[][] held = new byte[(int) (Runtime.getRuntime().maxMemory() / 2 / 1040)][];
        while (faults.getOrDefault("garbage", 0L) > 0) {
            long begun = System.nanoTime();
            for (long made = 0; made < faults.get("garbage") * 1000; made++) {
                held[ThreadLocalRandom.current().nextInt(held.length)] = new byte[1024];
            }
            try {
                Thread.sleep(Math.max(0, 1000 - (System.nanoTime() - begun) / 1_000_000));
            } catch (InterruptedException ended) {
                return;
            }
        }
    }
}
