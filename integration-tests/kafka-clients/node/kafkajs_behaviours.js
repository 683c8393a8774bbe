// KafkaJS, which speaks the protocol by code of its own and knows old versions only.
'use strict'

const { CompressionCodecs, CompressionTypes, ConfigResourceTypes, Kafka, logLevel } = require('kafkajs')
const { AssignerProtocol } = require('kafkajs')
const { Suite, Failed, unique, that, equal, eventually, numbered } = require('./suite.js')

CompressionCodecs[CompressionTypes.Snappy] = require('kafkajs-snappy')

const suite = new Suite('kafkajs')
// Long past: a topic for such records must keep them.
const T = 1700000000000
const KEEP = { 'retention.ms': '-1' }
const QUICK = { sessionTimeout: 6000, heartbeatInterval: 500, rebalanceTimeout: 10000, metadataMaxAge: 1000 }

const kafka = (brokers) =>
  new Kafka({ brokers, clientId: 'kafkajs', logLevel: logLevel.NOTHING, retry: { retries: 8, initialRetryTime: 100 } })

// Connects, hands the client to `use`, and disconnects whatever happens.
async function withClient(client, use) {
  await client.connect()
  try {
    return await use(client)
  } finally {
    await client.disconnect()
  }
}

const withAdmin = (brokers, use) => withClient(kafka(brokers).admin(), use)
const withProducer = (brokers, use, settings = {}) => withClient(kafka(brokers).producer(settings), use)

// Creates a topic, and returns its name once every partition has a leader.
async function newTopic(brokers, hint, numPartitions = 1, configs = {}) {
  const topic = unique(hint)
  const configEntries = Object.entries(configs).map(([name, value]) => ({ name, value }))
  await withAdmin(brokers, async (admin) => {
    await admin.createTopics({ topics: [{ topic, numPartitions, configEntries }], waitForLeaders: true })
    await awaitPartitions(admin, topic, numPartitions)
  })
  return topic
}

async function awaitPartitions(admin, topic, count) {
  await eventually(async () => {
    const { partitions } = (await admin.fetchTopicMetadata({ topics: [topic] })).topics[0]
    return partitions.length === count && partitions.every((one) => one.leader >= 0)
  }, `${count} partitions of ${topic}`)
}

async function send(brokers, topic, values, partition = 0, more = {}, settings = {}) {
  const messages = values.map((value) => ({ value, partition }))
  return withProducer(brokers, (producer) => producer.send({ topic, messages, ...more }), settings)
}

// A consumer that keeps all it reads, and what it was assigned.
class Member {
  constructor(brokers, topic, settings = {}, fromBeginning = true) {
    this.consumer = kafka(brokers).consumer({ groupId: unique('group'), ...QUICK, ...settings })
    this.topic = topic
    this.fromBeginning = fromBeginning
    this.messages = []
    this.assigned = []
    this.joins = 0
    this.consumer.on(this.consumer.events.GROUP_JOIN, ({ payload }) => {
      this.joins += 1
      this.assigned = Object.values(payload.memberAssignment).flat().sort((a, b) => a - b)
    })
  }

  async start(run = {}) {
    await this.consumer.connect()
    await this.consumer.subscribe({ topic: this.topic, fromBeginning: this.fromBeginning })
    await this.consumer.run({
      eachMessage: async ({ partition, message }) => this.messages.push({ partition, ...message }),
      ...run,
    })
    return this
  }

  get values() {
    return this.messages.map((message) => message.value.toString())
  }

  async take(count) {
    await eventually(() => this.messages.length >= count, () => `only ${this.messages.length} of ${count} records`)
    equal(count, this.messages.length, 'number of records')
    return this.messages
  }

  async stop() {
    await this.consumer.disconnect()
    this.assigned = []
  }
}

async function withMember(member, use) {
  try {
    await member.start()
    return await use(member)
  } finally {
    await member.stop()
  }
}

const readBack = (brokers, topic, count, settings) =>
  withMember(new Member(brokers, topic, settings), (member) => member.take(count))

async function awaitShared(partitions, least, ...members) {
  const wanted = Array.from({ length: partitions }, (_, n) => n)
  const held = () => members.map((member) => member.assigned)
  await eventually(() => {
    const all = held().flat().sort((a, b) => a - b)
    return JSON.stringify(all) === JSON.stringify(wanted) && held().every((each) => each.length >= least)
  }, () => `${partitions} partitions are not shared: ${JSON.stringify(held())}`, 60)
}

for (const [name, compression] of [['none', 0], ['gzip', CompressionTypes.GZIP], ['snappy', CompressionTypes.Snappy]]) {
  suite.add(`codec.${name}`, async (brokers) => {
    const topic = await newTopic(brokers, 'codec', 1, KEEP)
    const sent = Array.from({ length: 200 }, (_, n) => ({
      key: n % 3 ? Buffer.from(`key-${n}`) : null,
      value: n % 5 ? Buffer.from(`value-${n}`) : null,
      timestamp: String(T + 1000 * n),
      partition: 0,
      headers: { twice: [Buffer.from('first'), Buffer.from('second')], other: Buffer.from('x') },
    }))
    await withProducer(brokers, (producer) => producer.send({ topic, messages: sent, compression }))
    for (const [n, message] of (await readBack(brokers, topic, 200)).entries()) {
      const { key, value, timestamp, headers } = message
      equal(String(n), message.offset, 'offset')
      const { partition, ...expected } = sent[n]
      equal(JSON.stringify(expected), JSON.stringify({ key, value, timestamp, headers }), `record ${n}`)
    }
  })
}

for (const [name, acks] of [['0', 0], ['1', 1], ['all', -1]]) {
  suite.add(`produce.acks_${name}`, async (brokers) => {
    const topic = await newTopic(brokers, 'acks')
    await send(brokers, topic, numbered('v', 500), 0, { acks })
    const found = (await readBack(brokers, topic, 500)).map((message) => message.value.toString())
    equal(numbered('v', 500), found, 'values')
  })
}

suite.add('produce.idempotent', async (brokers) => {
  const topic = await newTopic(brokers, 'idempotent')
  const settings = { idempotent: true, maxInFlightRequests: 1 }
  await withProducer(brokers, async (producer) => {
    for (let n = 0; n < 50; n += 1) {
      const [answer] = await producer.send({ topic, acks: -1, messages: [{ value: `v${n}`, partition: 0 }] })
      equal(String(n), answer.baseOffset, 'base offset')
    }
  }, settings)
  await readBack(brokers, topic, 50)
})

suite.add('produce.too_large', async (brokers) => {
  const topic = await newTopic(brokers, 'narrow', 1, { 'max.message.bytes': '2000' })
  await refused(() => send(brokers, topic, ['x'.repeat(5000)]), 'MESSAGE_TOO_LARGE')
})

suite.add('produce.auto_create', async (brokers) => {
  const topic = unique('auto-created')
  await withProducer(brokers, (producer) => producer.send({ topic, messages: [{ value: 'hello' }] }))
  await withAdmin(brokers, (admin) => awaitPartitions(admin, topic, 3))
})

suite.add('produce.transactional', async (brokers) => {
  const topic = await newTopic(brokers, 'transaction')
  const settings = { transactionalId: unique('id'), maxInFlightRequests: 1, idempotent: true, retry: { retries: 2 } }
  const producer = kafka(brokers).producer(settings)
  try {
    await producer.connect()
    const transaction = await producer.transaction()
    await transaction.send({ topic, messages: [{ value: 'committed' }] })
    await transaction.commit()
    await readBack(brokers, topic, 1)
  } catch (failure) {
    that(!(failure instanceof Failed) && !failure.retriable, `neither done nor refused for good: ${failure}`)
  } finally {
    await producer.disconnect()
  }
})

suite.add('consume.seek', async (brokers) => {
  const topic = await newTopic(brokers, 'seek')
  await send(brokers, topic, numbered('v', 100))
  await withMember(new Member(brokers, topic), async (member) => {
    await member.take(100)
    member.messages.length = 0
    member.consumer.seek({ topic, partition: 0, offset: '60' })
    await member.take(40)
    equal(numbered('v', 100, 60), member.values, 'values')
  })
})

suite.add('consume.reset_latest', async (brokers) => {
  const topic = await newTopic(brokers, 'latest')
  await send(brokers, topic, numbered('v', 10))
  await withMember(new Member(brokers, topic, {}, false), async (member) => {
    await awaitShared(1, 1, member)
    // Nobody tells when the position has been looked up: the first to arrive shows it.
    await eventually(async () => {
      await send(brokers, topic, ['later'])
      return member.messages.length > 0
    }, 'nothing came')
    that(member.values.every((value) => value === 'later'), `found ${member.values}`)
  })
})

suite.add('consume.pause_resume', async (brokers) => {
  const topic = await newTopic(brokers, 'pause', 2)
  const member = new Member(brokers, topic)
  await withMember(member, async () => {
    await awaitShared(2, 2, member)
    member.consumer.pause([{ topic, partitions: [0] }])
    await send(brokers, topic, numbered('a', 10), 0)
    await send(brokers, topic, numbered('b', 10), 1)
    await member.take(10)
    equal(numbered('b', 10), member.values, 'values while paused')
    member.consumer.resume([{ topic, partitions: [0] }])
    await member.take(20)
  })
})

suite.add('offsets.bounds', async (brokers) => {
  const topic = await newTopic(brokers, 'bounds')
  await send(brokers, topic, numbered('v', 10))
  const expected = [{ partition: 0, offset: '10', high: '10', low: '0' }]
  equal(expected, plain(await withAdmin(brokers, (admin) => admin.fetchTopicOffsets(topic))), 'bounds')
})

suite.add('offsets.for_times', async (brokers) => {
  const topic = await newTopic(brokers, 'times', 1, KEEP)
  const messages = [0, 2000, 1000, 3000].map((after) => ({ value: 'x', partition: 0, timestamp: String(T + after) }))
  await withProducer(brokers, async (producer) => {
    for (const message of messages) await producer.send({ topic, messages: [message] })
  })
  await withAdmin(brokers, async (admin) => {
    for (const [stamp, offset] of [[T, '0'], [T + 1, '1'], [T + 2001, '3'], [T + 9999, '4']]) {
      const found = plain(await admin.fetchTopicOffsetsByTimestamp(topic, stamp))
      equal([{ partition: 0, offset }], found, `offset at ${stamp - T}`)
    }
  })
})

suite.add('group.roundrobin', async (brokers) => {
  const topic = await newTopic(brokers, 'group', 6)
  const settings = { groupId: topic }
  await withMember(new Member(brokers, topic, settings), async (first) => {
    await awaitShared(6, 6, first)
    await withMember(new Member(brokers, topic, settings), async (second) => {
      await awaitShared(6, 3, first, second)
      for (let partition = 0; partition < 6; partition += 1) await send(brokers, topic, numbered('v', 20), partition)
      await eventually(() => first.messages.length + second.messages.length >= 120, 'not all records were read')
      equal([60, 60], [first.messages.length, second.messages.length], 'records of each')
    })
    await awaitShared(6, 6, first)
  })
})

suite.add('commit.resume', async (brokers) => {
  const topic = await newTopic(brokers, 'resume')
  await send(brokers, topic, numbered('v', 10))
  await withMember(new Member(brokers, topic, { groupId: topic }), (member) => member.take(10))
  await send(brokers, topic, numbered('w', 10))
  const again = await readBack(brokers, topic, 10, { groupId: topic })
  equal(numbered('w', 10), again.map((message) => message.value.toString()), 'values after a restart')
})

suite.add('commit.metadata', async (brokers) => {
  const topic = await newTopic(brokers, 'commit')
  const consumer = kafka(brokers).consumer({ groupId: topic, ...QUICK })
  await withClient(consumer, async () => {
    await consumer.subscribe({ topic })
    await consumer.run({ autoCommit: false, eachMessage: async () => {} })
    await eventually(async () => {
      const { state } = await consumer.describeGroup()
      return state === 'Stable'
    }, 'the group is not stable')
    await consumer.commitOffsets([{ topic, partition: 0, offset: '7', metadata: 'a note, é中' }])
  })
  const found = plain(await withAdmin(brokers, (admin) => admin.fetchOffsets({ groupId: topic, topics: [topic] })))
  equal([{ topic, partitions: [{ partition: 0, offset: '7', metadata: 'a note, é中' }] }], found, 'committed')
})

suite.add('admin.create_topic', async (brokers) => {
  const topic = await newTopic(brokers, 'create', 4, { 'retention.ms': '3600000' })
  await withAdmin(brokers, async (admin) => {
    that((await admin.listTopics()).includes(topic), 'the topic is not in the list')
    equal(false, await admin.createTopics({ topics: [{ topic }] }), 'creating it again')
  })
})

suite.add('admin.delete_topic', async (brokers) => {
  const topic = await newTopic(brokers, 'delete')
  await withAdmin(brokers, async (admin) => {
    await admin.deleteTopics({ topics: [topic] })
    await eventually(async () => !(await admin.listTopics()).includes(topic), 'the topic is still listed')
  })
})

suite.add('admin.create_partitions', async (brokers) => {
  const topic = await newTopic(brokers, 'grow', 2)
  await withAdmin(brokers, async (admin) => {
    await admin.createPartitions({ topicPartitions: [{ topic, count: 5 }] })
    await awaitPartitions(admin, topic, 5)
  })
  await send(brokers, topic, ['v'], 4)
})

suite.add('admin.describe_configs', async (brokers) => {
  const topic = await newTopic(brokers, 'configs', 1, { 'retention.ms': '7200000' })
  const resources = [{ type: ConfigResourceTypes.TOPIC, name: topic, configNames: ['retention.ms'] }]
  const answer = await withAdmin(brokers, (admin) => admin.describeConfigs({ resources }))
  const entry = answer.resources[0].configEntries.find((one) => one.configName === 'retention.ms')
  equal('7200000', entry.configValue, 'value')
})

suite.add('admin.describe_cluster', async (brokers) => {
  const found = await withAdmin(brokers, (admin) => admin.describeCluster())
  that(found.brokers.length > 0 && found.clusterId, JSON.stringify(found))
})

suite.add('admin.delete_records', async (brokers) => {
  const topic = await newTopic(brokers, 'delete-records')
  await send(brokers, topic, numbered('v', 100))
  await withAdmin(brokers, async (admin) => {
    // This client deletes only from topics that it has asked about.
    equal('0', (await admin.fetchTopicOffsets(topic))[0].low, 'low watermark before')
    await admin.deleteTopicRecords({ topic, partitions: [{ partition: 0, offset: '37' }] })
    equal('37', (await admin.fetchTopicOffsets(topic))[0].low, 'low watermark')
  })
})

suite.add('admin.list_groups', async (brokers) => {
  const topic = await newTopic(brokers, 'groups')
  await withMember(new Member(brokers, topic, { groupId: topic }), async (member) => {
    await awaitShared(1, 1, member)
    const { groups } = await withAdmin(brokers, (admin) => admin.listGroups())
    equal('consumer', groups.find((one) => one.groupId === topic)?.protocolType, 'protocol type')
  })
})

suite.add('admin.describe_group', async (brokers) => {
  const topic = await newTopic(brokers, 'groups', 2)
  await withMember(new Member(brokers, topic, { groupId: topic }), async (member) => {
    await awaitShared(2, 2, member)
    const [group] = (await withAdmin(brokers, (admin) => admin.describeGroups([topic]))).groups
    equal(['Stable', 'consumer', 'RoundRobinAssigner'], [group.state, group.protocolType, group.protocol], 'group')
    const { assignment } = AssignerProtocol.MemberAssignment.decode(group.members[0].memberAssignment)
    equal({ [topic]: [0, 1] }, { [topic]: assignment[topic].sort() }, 'assignment')
  })
})

suite.add('admin.alter_group_offsets', async (brokers) => {
  const topic = await newTopic(brokers, 'alter')
  await withAdmin(brokers, async (admin) => {
    await admin.setOffsets({ groupId: topic, topic, partitions: [{ partition: 0, offset: '8' }] })
    const [{ partitions }] = await admin.fetchOffsets({ groupId: topic, topics: [topic] })
    equal('8', partitions[0].offset, 'offset')
  })
})

suite.add('admin.delete_group', async (brokers) => {
  const topic = await newTopic(brokers, 'delete')
  await withMember(new Member(brokers, topic, { groupId: topic }), async (member) => {
    await awaitShared(1, 1, member)
    await withAdmin(brokers, (admin) => refused(() => admin.deleteGroups([topic]), 'NON_EMPTY_GROUP'))
  })
  await withAdmin(brokers, (admin) => admin.deleteGroups([topic]))
})

// Runs what must fail with this error.
async function refused(call, type) {
  let answer
  try {
    answer = await call()
  } catch (failure) {
    const found = failure.type ?? failure.groups?.[0]?.error?.type ?? failure.cause?.type
    equal(type, found, `error (${failure.message})`)
    return
  }
  throw new Failed(`expected ${type}, found the answer ${JSON.stringify(answer)}`)
}

const plain = (value) => JSON.parse(JSON.stringify(value))

suite.main()
